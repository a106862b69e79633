//! A base that was made by hand from `docs/formats/backup.md`: one value, whose 300 pieces are one chunk.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use serde_json::{Value, json};

const PIECE: u64 = 1 << 20;
const PIECES: u64 = 300;
pub const VALUE: u64 = PIECE * PIECES;

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn document(kind: &str, version: u32, content: &Value, tail: &[u8]) -> Bytes {
    let rest = [content.to_string().as_bytes(), b"\n", tail].concat();
    let hash = blake3::hash(&rest).to_hex();
    let first =
        format!("{{\"tierstack_backup\":{version},\"kind\":\"{kind}\",\"blake3\":\"{hash}\"}}\n");
    [first.as_bytes(), &rest].concat().into()
}

/// A chunk in a pack, and its entry in the list.
fn chunk(key: &[u8; 32], plain: &[u8], pack: &mut Vec<u8>, run: Option<(u64, &[u8])>) -> Vec<u8> {
    let hash = blake3::keyed_hash(key, plain);
    let stored = zstd::bulk::compress(plain, 3).unwrap();
    let mut frame = hash.as_bytes().to_vec();
    frame.push(1);
    frame.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    frame.extend_from_slice(&stored);
    let mut entry = vec![u8::from(run.is_some())];
    entry.extend_from_slice(hash.as_bytes());
    for part in [0, pack.len(), frame.len(), plain.len()] {
        number(&mut entry, part as u64);
    }
    if let Some((entries, boundary)) = run {
        number(&mut entry, entries);
        number(&mut entry, boundary.len() as u64);
        entry.extend_from_slice(boundary);
    }
    pack.extend_from_slice(&frame);
    entry
}

/// Adds the base to an empty repository.
pub async fn add_base(objects: &InMemory, longest_value: u64) {
    let read = objects.get(&"repo.json".into()).await.unwrap().bytes().await.unwrap();
    let line = read.split(|byte| *byte == b'\n').nth(1).unwrap();
    let repository: Value = serde_json::from_slice(line).unwrap();
    let key = blake3::Hash::from_hex(repository["key"].as_str().unwrap()).unwrap();

    let mut plain = Vec::new();
    number(&mut plain, 1);
    plain.extend_from_slice(b"k\x02");
    number(&mut plain, VALUE);
    let piece = vec![0; PIECE as usize];
    let mut pack = b"TSPACK\0\x01".to_vec();
    let run = chunk(key.as_bytes(), &plain, &mut pack, Some((1, b"k")));
    let of_piece = chunk(key.as_bytes(), &piece, &mut pack, None);
    let pack_id = blake3::keyed_hash(key.as_bytes(), &pack);

    let mut tail = vec![1];
    tail.extend_from_slice(pack_id.as_bytes());
    number(&mut tail, pack.len() as u64);
    number(&mut tail, 1 + PIECES);
    tail.extend_from_slice(&run);
    (0..PIECES).for_each(|_| tail.extend_from_slice(&of_piece));

    let mut digest = blake3::Hasher::new_keyed(key.as_bytes());
    digest.update(&1u64.to_le_bytes()).update(b"k").update(&VALUE.to_le_bytes());
    for _ in 0..PIECES {
        digest.update(&piece);
    }
    digest.update(&[0; 9]);
    let digest = digest.finalize().to_hex().to_string();

    let (id, lineage) = ("0".repeat(16), repository["lineage"].as_str().unwrap());
    let base = json!({
        "id": id, "lineage": lineage, "parent": null, "started": 7, "time": 7, "first_seq": null,
        "last_seq": null, "entries": 1, "expiring": 0, "bytes": 1 + VALUE, "longest_key": 1,
        "longest_value": longest_value, "uploaded_bytes": 0, "digest": digest,
    });
    let manifest = document("base", 2, &base, &tail);
    let head = json!({
        "repository": repository["id"], "number": 1, "nonce": id, "time": 7, "epoch": 0,
        "lineage": { "id": lineage, "parent": null, "fork_seq": null }, "last_seq": null,
        "last_segment": null, "boundary": null,
        "bases": [{
            "base": base, "manifest_bytes": manifest.len(),
            "manifest_hash": blake3::hash(&manifest).to_hex().to_string(),
        }],
    });
    let name = pack_id.to_hex();
    for (path, bytes) in [
        (format!("data/{}/{name}.pack", &name[..2]), pack.into()),
        (format!("base/{lineage}/{:020}-{:020}-{id}.base", 0, 7), manifest),
        (format!("head/{:020}.json", 1), document("head", 1, &head, b"")),
    ] {
        objects.put(&path.into(), bytes.into()).await.unwrap();
    }
}
