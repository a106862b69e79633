//! What runs on the server, in one piece: a script is atomic.
//!
//! A script without a `#!` line checks `maxmemory` at its first write, and by the state before it began:
//! it is refused before anything is written, or runs to its end.

/// Every script, to be loaded into a server.
pub(super) const ALL: &[&str] = &[WRITE, READ, PAGE, SWEEP];

/// Writes a batch, or nothing. 0: done. n: the nth key is there, and was to be absent. -n: the nth key
/// holds something else than a string.
///
/// KEYS: one for each operation; with an index, that last. ARGV: `x` if the puts' keys are to be absent;
/// how many bytes of each key are not the entry's own, or nothing without an index; then for each
/// operation the value, and the deadline, nothing, or `d` for a delete.
pub(super) const WRITE: &str = "\
local ops, index = #KEYS, nil
local cut = tonumber(ARGV[2])
if cut then
  index = KEYS[ops]
  ops = ops - 1
  local kind = redis.call('TYPE', index).ok
  if kind ~= 'zset' and kind ~= 'none' then return -ops - 1 end
end
local absent = ARGV[1] == 'x'
for i = 1, ops do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind == 'string' then
    if absent and ARGV[2 * i + 2] ~= 'd' then return i end
  elseif kind ~= 'none' then
    return -i
  end
end
for i = 1, ops do
  local key, deadline = KEYS[i], ARGV[2 * i + 2]
  if deadline == 'd' then
    redis.call('DEL', key)
  elseif deadline == '' then
    redis.call('SET', key, ARGV[2 * i + 1])
  else
    redis.call('SET', key, ARGV[2 * i + 1], 'PXAT', deadline)
  end
  if index then
    local member = string.sub(key, cut + 1)
    if deadline == 'd' then
      redis.call('ZREM', index, member)
    else
      redis.call('ZADD', index, 0, member)
    end
  end
end
return 0
";

/// Value and deadline of each key, one after the other. What a server whose memory is full still answers: it
/// refuses to queue commands then, also those that read.
pub(super) const READ: &str = "\
local found = {}
for i = 1, #KEYS do
  found[2 * i - 1] = redis.call('GET', KEYS[i])
  found[2 * i] = redis.call('PEXPIRETIME', KEYS[i])
end
return found
";

/// A page of a scan: whether it ended at the end of the range (2: the index is not complete, as somebody
/// removed it), the last key that was looked at, and then
/// key, value and deadline of each entry. What is gone, as it expired or was removed by somebody else, is
/// taken out of the index on the way: nothing can bring it back in between.
///
/// KEYS: the index. ARGV: what stands before the keys; the first and the last key, as the command takes
/// them; the command; how many keys to look at; the bytes that end the page.
pub(super) const PAGE: &str = "\
if not redis.call('ZSCORE', KEYS[1], '') then return { 2, '' } end
local prefix, most, room = ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[6])
local found = redis.call(ARGV[4], KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, most)
local page = { 0, '' }
local gone, bytes = {}, 0
if #found < most then page[1] = 1 end
for i = 1, #found do
  local key = found[i]
  page[2] = key
  if key ~= '' then
    local value = redis.pcall('GET', prefix .. key)
    if type(value) == 'string' then
      page[#page + 1] = key
      page[#page + 1] = value
      page[#page + 1] = redis.call('PEXPIRETIME', prefix .. key)
      bytes = bytes + #key + #value
      if bytes >= room then
        if i < #found then page[1] = 0 end
        break
      end
    elseif not value or string.sub(value.err, 1, 9) == 'WRONGTYPE' then
      gone[#gone + 1] = key
    else
      return value
    end
  end
end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return page
";

/// Takes what is gone out of a part of the index. Gives the last key that was looked at, or nothing at the
/// end.
///
/// KEYS: the index. ARGV: what stands before the keys; the first key, as the command takes it; how many.
pub(super) const SWEEP: &str = "\
local prefix, most = ARGV[1], tonumber(ARGV[3])
local found = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, most)
local gone = {}
for i = 1, #found do
  if found[i] ~= '' and redis.call('TYPE', prefix .. found[i]).ok ~= 'string' then
    gone[#gone + 1] = found[i]
  end
end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
if #found < most then return false end
return found[#found]
";
