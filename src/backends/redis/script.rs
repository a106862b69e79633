//! What runs on the server, in one piece: a script is atomic.
//!
//! A script without a `#!` line checks `maxmemory` at its first write, and by the state before it began:
//! it is refused before anything is written, or runs to its end. Its numbers have 53 bits: a deadline that is later
//! is cut to the last that they hold, as it would come back as anything.

/// Every script, to be loaded into a server.
pub(super) const ALL: &[&str] = &[WRITE, READ, PAGE, SWEEP, FILL, LIST, MARK, RIGHTS];

/// Writes a batch, or nothing. 0: done. n: the nth condition does not hold. -n: the nth key holds something else
/// than a string.
///
/// KEYS: one for each operation, one for each condition; with an index, that last. ARGV: how many operations; how
/// many bytes of each key are not the entry's own, or nothing without an index; then for each operation the
/// value, and the deadline, nothing, or `d` for a delete; then for each condition the value, and the deadline,
/// nothing, or `a` if the key is to be absent. The last deadline stands for all later ones, as it does where it is read.
pub(super) const WRITE: &str = "\
local ops, last, index = tonumber(ARGV[1]), #KEYS, nil
local cut = tonumber(ARGV[2])
if cut then
  index = KEYS[last]
  last = last - 1
  local kind = redis.call('TYPE', index).ok
  if kind ~= 'zset' and kind ~= 'none' then return -last - 1 end
end
for i = 1, last do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'string' and kind ~= 'none' then return -i end
  if i > ops then
    local deadline = ARGV[2 * i + 2]
    if deadline == 'a' then
      if kind == 'string' then return i - ops end
    else
      if redis.call('GET', KEYS[i]) ~= ARGV[2 * i + 1] then return i - ops end
      local found = math.min(redis.call('PEXPIRETIME', KEYS[i]), 9007199254740991)
      if found ~= (tonumber(deadline) or -1) then return i - ops end
    end
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
  found[2 * i] = math.min(redis.call('PEXPIRETIME', KEYS[i]), 9007199254740991)
end
return found
";

/// A page of a scan: whether it ended at the end of the range, or what keeps it from beginning (2: the index is
/// missing, or not complete; 3: there are more keys than it knows of), the last key that was looked at, and then
/// key, value and deadline of each entry, or its key alone. What is gone, as it expired or was removed by somebody else, is
/// taken out of the index on the way, as far as the user may: nothing can bring it back in between.
///
/// KEYS: the index. ARGV: what precedes the keys; the first and the last key, as the command takes
/// them; the command; how many keys to look at; the bytes that end the page; `x` to look whether there are more
/// keys, which only a store that has the database to itself can tell; `k` for keys alone.
pub(super) const PAGE: &str = "\
local mark = tonumber(redis.call('ZSCORE', KEYS[1], '') or nil)
if not mark then return { 2, '' } end
if ARGV[7] == 'x' then
  local beside = redis.call('DBSIZE') - redis.call('ZCARD', KEYS[1])
  -- A mark of 0 is that of an earlier version, and says nothing.
  if mark >= 0 or beside > -1 - mark then return { 3, '' } end
end
local prefix, most, room = ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[6])
local found = redis.call(ARGV[4], KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, most)
local page = { 0, '' }
local gone, bytes, alone = {}, 0, ARGV[8] == 'k'
if #found < most then page[1] = 1 end
for i = 1, #found do
  local key = found[i]
  page[2] = key
  if key ~= '' and #key <= 65536 then
    local value = false
    if not alone then
      value = redis.pcall('GET', prefix .. key)
    elseif redis.call('TYPE', prefix .. key).ok == 'string' then
      value = ''
    end
    if type(value) == 'string' then
      page[#page + 1] = key
      if not alone then
        page[#page + 1] = value
        page[#page + 1] = math.min(redis.call('PEXPIRETIME', prefix .. key), 9007199254740991)
      end
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
if #gone > 0 then redis.pcall('ZREM', KEYS[1], unpack(gone)) end
return page
";

/// Takes what is gone out of a part of the index. Gives the last key that was looked at, or nothing at the
/// end.
///
/// KEYS: the index. ARGV: what precedes the keys; the first key, as the command takes it; how many.
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

/// Takes keys that another program wrote into the index, of one step of `SCAN`. Gives the next cursor, how many keys
/// there were that no entry can have: of another type, too long, empty; and one of these.
///
/// KEYS: the index. ARGV: what precedes the keys; the cursor; how many keys to look at; `x` to do it only where
/// the index is complete, which otherwise gives no cursor; and perhaps the pattern of the keys.
pub(super) const FILL: &str = "\
local index, prefix = KEYS[1], ARGV[1]
if ARGV[4] == 'x' and not redis.call('ZSCORE', index, '') then return { '', 0, 0, 0, false } end
local step
if ARGV[5] then
  step = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3], 'MATCH', ARGV[5])
else
  step = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3])
end
local other, long, empty, example = 0, 0, 0, false
local keys = {}
local function add()
  if #keys == 0 then return end
  local known, new = redis.call('ZMSCORE', index, unpack(keys)), {}
  for i = 1, #keys do
    if not known[i] then
      new[#new + 1] = 0
      new[#new + 1] = keys[i]
    end
  end
  if #new > 0 then redis.call('ZADD', index, unpack(new)) end
  keys = {}
end
for _, full in ipairs(step[2]) do
  if full ~= index and string.sub(full, 1, #prefix) == prefix then
    local kind = redis.call('TYPE', full).ok
    local key = string.sub(full, #prefix + 1)
    if kind == 'string' and key ~= '' and #key <= 65536 then
      keys[#keys + 1] = key
      if #keys >= 2000 then add() end
    elseif kind ~= 'none' then
      if kind ~= 'string' then
        other = other + 1
      elseif key == '' then
        empty = 1
      else
        long = long + 1
      end
      example = string.sub(full, 1, 1024)
    end
  end
end
add()
return { step[1], other, long, empty, example }
";

/// Lists the keys of one step of `SCAN`. Gives the next cursor, how many there were that no entry can have, as `FILL`
/// does, and how many entries, or their keys, without what is not the entry's own.
///
/// KEYS: the index, which is none of them. ARGV: what the keys begin with; the cursor; how many to look at; how much of
/// a key is not the entry's own; `k` for the keys; and perhaps the pattern of the keys.
pub(super) const LIST: &str = "\
local prefix, cut, step = ARGV[1], tonumber(ARGV[4]), nil
if ARGV[6] then
  step = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3], 'MATCH', ARGV[6])
else
  step = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3])
end
local other, long, empty, example, entries, keys = 0, 0, 0, false, 0, {}
for _, full in ipairs(step[2]) do
  if full ~= KEYS[1] and string.sub(full, 1, #prefix) == prefix then
    local kind, length = redis.call('TYPE', full).ok, #full - cut
    if kind == 'string' and length > 0 and length <= 65536 then
      entries = entries + 1
      if ARGV[5] == 'k' then keys[entries] = string.sub(full, cut + 1) end
    elseif kind ~= 'none' then
      if kind ~= 'string' then
        other = other + 1
      elseif length == 0 then
        empty = 1
      else
        long = long + 1
      end
      example = string.sub(full, 1, 1024)
    end
  end
end
return { step[1], other, long, empty, example, ARGV[5] == 'k' and keys or entries }
";

/// Which commands the user may not run, and which keys it may not use: for each of these the command, and why. Runs none
/// of them: what is tried, to learn why, was found to be forbidden.
///
/// ARGV: a key; with an index, that. As KEYS they would have the script itself refused.
pub(super) const RIGHTS: &str = "\
local key, index = ARGV[1], ARGV[2]
local needed = { { 'SET', key, '', 'GET' }, { 'DEL', key }, { 'TYPE', key } }
if index then
  for _, command in ipairs({
    { 'GET', key }, { 'PEXPIRETIME', key },
    { 'SCAN', '0' }, { 'DBSIZE' }, { 'ZCARD', index }, { 'ZSCORE', index, '' },
    { 'ZMSCORE', index, '' },
    { 'ZRANGEBYLEX', index, '-', '+' }, { 'ZREVRANGEBYLEX', index, '+', '-' },
    { 'ZADD', index, '0', '' }, { 'ZREM', index, '' },
  }) do needed[#needed + 1] = command end
end
local forbidden = {}
for _, command in ipairs(needed) do
  if not redis.acl_check_cmd(unpack(command)) then
    forbidden[#forbidden + 1] = string.lower(command[1])
    forbidden[#forbidden + 1] = redis.pcall(unpack(command)).err or ''
  end
end
return forbidden
";

/// Marks the index as complete. The score of the mark is how many keys there are in addition to those that it knows of, as
/// -1 - n: below that of the others, so that the mark stays the first.
///
/// KEYS: the index.
pub(super) const MARK: &str = "\
redis.call('ZADD', KEYS[1], -1, '')
local beside = redis.call('DBSIZE') - redis.call('ZCARD', KEYS[1])
redis.call('ZADD', KEYS[1], -1 - math.max(beside, 0), '')
";
