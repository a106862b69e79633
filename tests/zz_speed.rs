#![allow(clippy::all)]
mod servers;
use std::time::Instant;
use tierstack::backends::{Redis, RedisConfig};
use tierstack::{Read, StoreExt};
#[tokio::test(flavor = "multi_thread")]
async fn speed() {
    let Some(server) = servers::Redis::start(&[]).await else { return };
    let url = server.url();
    let store = Redis::open(RedisConfig::new(url.clone())).await.unwrap();
    let client = redis::Client::open(url).unwrap();
    let con = client.get_multiplexed_async_connection().await.unwrap();
    let value = vec![7u8; 1024];
    for n in 0..2000 {
        store.put(format!("key-{n:06}"), value.clone()).await.unwrap();
    }
    let sha: String = {
        let mut c = con.clone();
        redis::cmd("SCRIPT").arg("LOAD").arg("local v=redis.call('GET',KEYS[1]) if not v then return v end return {v,redis.call('PEXPIRETIME',KEYS[1])}").query_async(&mut c).await.unwrap()
    };
    let mut t: std::collections::BTreeMap<&str, Vec<f64>> = Default::default();
    let keys: Vec<bytes::Bytes> = (0..100).map(|n| format!("key-{n:06}").into()).collect();
    for round in 0..60 {
        const N: usize = 300;
        macro_rules! m {
            ($name:expr, $n:ident, $body:expr) => {{
                let b = Instant::now();
                for i in 0..N {
                    let $n = format!("key-{:06}", (round * 37 + i) % 2000);
                    $body;
                }
                t.entry($name).or_default().push(b.elapsed().as_secs_f64() * 1e6 / N as f64);
            }};
        }
        m!("get bare", k, {
            let mut c = con.clone();
            let v: Vec<u8> = redis::cmd("GET").arg(&*k).query_async(&mut c).await.unwrap();
            assert_eq!(v.len(), 1024)
        });
        m!("get store", k, {
            assert_eq!(store.get(k.as_bytes()).await.unwrap().unwrap().bytes.len(), 1024)
        });
        m!("get multi", k, {
            let mut c = con.clone();
            let v: (Vec<u8>, i64) = redis::pipe()
                .atomic()
                .cmd("GET")
                .arg(&*k)
                .cmd("PEXPIRETIME")
                .arg(&*k)
                .query_async(&mut c)
                .await
                .unwrap();
            assert_eq!(v.0.len(), 1024)
        });
        m!("get two", k, {
            let mut c = con.clone();
            let v: (Vec<u8>, i64) = redis::pipe()
                .cmd("GET")
                .arg(&*k)
                .cmd("PEXPIRETIME")
                .arg(&*k)
                .query_async(&mut c)
                .await
                .unwrap();
            assert_eq!(v.0.len(), 1024)
        });
        m!("get three", k, {
            let mut c = con.clone();
            let v: (i64, Vec<u8>, i64) = redis::pipe()
                .cmd("PEXPIRETIME")
                .arg(&*k)
                .cmd("GET")
                .arg(&*k)
                .cmd("PEXPIRETIME")
                .arg(&*k)
                .query_async(&mut c)
                .await
                .unwrap();
            assert_eq!(v.1.len(), 1024)
        });
        m!("get lua", k, {
            let mut c = con.clone();
            let v: (Vec<u8>, i64) = redis::cmd("EVALSHA_RO")
                .arg(&sha)
                .arg(1)
                .arg(&*k)
                .query_async(&mut c)
                .await
                .unwrap();
            assert_eq!(v.0.len(), 1024)
        });
        m!("set bare", k, {
            let mut c = con.clone();
            let _: () =
                redis::cmd("SET").arg(&*k).arg(&value[..]).query_async(&mut c).await.unwrap();
        });
        m!("set store", k, {
            store.put(k, value.clone()).await.unwrap();
        });
        if round % 10 == 0 {
            m!("mget bare", _k, {
                let mut c = con.clone();
                let mut cmd = redis::cmd("MGET");
                for k in &keys {
                    cmd.arg(&**k);
                }
                let v: Vec<Vec<u8>> = cmd.query_async(&mut c).await.unwrap();
                assert_eq!(v.len(), 100)
            });
            m!("mget store", _k, { assert_eq!(store.get_many(&keys).await.unwrap().len(), 100) });
        }
    }
    for (name, mut v) in t {
        v.sort_by(|a, b| a.total_cmp(b));
        println!("{name:12} median {:7.1} us  min {:7.1}", v[v.len() / 2], v[0]);
    }
}
