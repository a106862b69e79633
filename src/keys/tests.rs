use std::cmp::Ordering;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::types::{Limits, Scan};

fn key<T: TuplePack>(tuple: T) -> Vec<u8> {
    pack(&tuple).unwrap().to_vec()
}

/// The cases of `design/tuple.md` of FoundationDB.
#[test]
fn the_published_vectors_are_met() {
    assert_eq!(key((&b"foo\0bar"[..],)), b"\x01foo\0\xffbar\0");
    assert_eq!(key(("F\u{d4}O\0bar",)), b"\x02F\xc3\x94O\x00\xffbar\x00");
    let nested = ((&b"foo\0bar"[..], None::<bool>, ()),);
    assert_eq!(key(nested), b"\x05\x01foo\x00\xffbar\x00\x00\xff\x05\x00\x00");
    assert_eq!(key((((),),)), b"\x05\x05\x00\x00", "an empty tuple, nested");
    assert_eq!(key(((None::<bool>,),)), b"\x05\x00\xff\x00");
    assert_eq!(key((-1,)), b"\x13\xfe");
    assert_eq!(key((-5_551_212,)), b"\x11\xabK\x93");
    assert_eq!(key((-42f32,)), b"\x20\x3d\xd7\xff\xff");
    assert_eq!(key((None::<bool>, false, true)), b"\x00\x26\x27");
    let uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    assert_eq!(
        key((uuid,)),
        b"\x30\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
    );
}

/// The examples of `docs/keys.md`.
#[test]
fn the_guide_shows_the_bytes_as_they_are() {
    let guide = include_str!("../../docs/keys.md");
    let micro = Time(jiff::Timestamp::from_nanosecond(1000).unwrap());
    for (tuple, key) in [
        ("(\"user\", 42)", key(("user", 42))),
        ("(-1,)", key((-1,))),
        ("(1.5f64,)", key((1.5f64,))),
        ("(\"a\", None)", key(("a", None::<bool>))),
        ("((\"a\", None),)", key((("a", None::<bool>),))),
        ("(1970-01-01T00:00:00.000001Z,)", key((micro,))),
    ] {
        let hex = key.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        assert!(guide.contains(&format!("| `{tuple}` | `{hex}` |")), "{tuple} is {hex}");
    }
}

/// Each type code of integers at both of its ends, by the rules of `design/tuple.md`.
#[test]
fn integers_use_the_shortest_code() {
    for bytes in 1..=8usize {
        let largest = (1i128 << (8 * bytes)) - 1;
        let smallest = 1i128 << (8 * (bytes - 1));
        for value in [smallest, largest] {
            let magnitude = &value.to_be_bytes()[16 - bytes..];
            let mut positive = vec![0x14 + bytes as u8];
            positive.extend(magnitude);
            let mut negative = vec![0x14 - bytes as u8];
            negative.extend(magnitude.iter().map(|byte| !byte));
            assert_eq!(key((value,)), positive);
            assert_eq!(key((-value,)), negative);
            assert_eq!(key((BigInt::from(-value),)), negative);
        }
    }
    assert_eq!(key((0,)), [0x14]);
    let nine = 1i128 << 64;
    assert_eq!(key((nine,)), b"\x1d\x09\x01\0\0\0\0\0\0\0\0");
    assert_eq!(key((-nine,)), b"\x0b\xf6\xfe\xff\xff\xff\xff\xff\xff\xff\xff");
}

#[test]
fn a_time_is_a_tagged_number_of_nanoseconds() {
    let time = Time::try_from(Timestamp::from_millis(1)).unwrap();
    assert_eq!(key((time,)), b"\x05\x02@time\0\x17\x0f\x42\x40\0");
    assert_eq!(key((time,)), key((("@time", 1_000_000),)));
    assert_eq!(unpack::<Vec<Part>>(&key((time,))).unwrap(), [Part::Time(time)]);
    assert_eq!(unpack::<Time>(&key(time)).unwrap(), time, "alone, it keeps its brackets");
    let ages_ago: Time = "-009998-01-01T00:00:00.000000001Z".parse().unwrap();
    assert_eq!(unpack::<(Time,)>(&key((ages_ago,))).unwrap().0, ages_ago);
    assert!(Time::try_from(Timestamp::from_millis(u64::MAX)).is_err());
}

#[test]
fn nothing_but_a_time_is_tagged_as_one() {
    let forged = vec![Part::Tuple(vec![Part::from("@time"), Part::from(5)])];
    let error = pack(&forged).unwrap_err();
    assert!(error.to_string().contains("Part::Time"), "{error}");
    for wrong in [key((("@time",),)), key((("@time", "x"),)), key((("@time", i128::MAX),))] {
        assert!(unpack::<Vec<Part>>(&wrong).is_err());
        assert!(unpack::<(Time,)>(&wrong).is_err());
    }
    assert!(unpack::<(Time,)>(&key((("@tim", 1),))).is_err());
}

#[test]
fn a_number_of_another_type_is_refused() {
    assert!(unpack::<(i16,)>(&key((70_000,))).is_err());
    assert!(unpack::<(f64,)>(&key((1f32,))).is_err());
    assert!(unpack::<(i64,)>(&key((1f64,))).is_err());
    assert!(unpack::<(String,)>(&key((&b"bytes"[..],))).is_err());
}

#[test]
fn an_integer_longer_than_it_must_be_is_refused() {
    for other_five in [&b"\x16\0\x05"[..], b"\x1d\x01\x05", b"\x1d\x00", b"\x13\xff", b"\x0b\xff"] {
        assert!(unpack::<Vec<Part>>(other_five).is_err(), "{other_five:?}");
        assert!(unpack::<(i64,)>(other_five).is_err(), "{other_five:?}");
    }
}

#[test]
fn limits_are_told() {
    let error = pack(&("x".repeat(MAX_BYTES),)).unwrap_err();
    assert!(error.to_string().contains("65536"), "{error}");
    assert_eq!(MAX_BYTES, Limits::MAX_KEY_BYTES);
    let error = pack(&()).unwrap_err();
    assert!(error.to_string().contains("empty tuple"), "{error}");
    let largest: BigInt = (BigInt::from(1) << (8 * 255)) - BigInt::from(1);
    assert_eq!(unpack::<BigInt>(&key(largest.clone())).unwrap(), largest);
    let error = pack(&(largest + BigInt::from(1))).unwrap_err();
    assert!(error.to_string().contains("255 bytes"), "{error}");
    let stamp = foundationdb_tuple::Versionstamp::incomplete(0);
    assert!(pack(&(stamp,)).unwrap_err().to_string().contains("versionstamp"));
}

fn nested(depth: usize) -> Vec<Part> {
    (0..depth).fold(vec![Part::Null], |inner, _| vec![Part::Tuple(inner)])
}

#[test]
fn nesting_is_bounded_both_ways() {
    let deepest = nested(MAX_NESTING);
    assert_eq!(unpack::<Vec<Part>>(&key(deepest.clone())).unwrap(), deepest);
    assert!(pack(&nested(MAX_NESTING + 1)).unwrap_err().to_string().contains("64"));
    let bomb = vec![code_of_tuple(); MAX_BYTES];
    assert!(unpack::<Vec<Part>>(&bomb).is_err());
    assert!(unpack::<Part>(&bomb).is_err());
}

fn code_of_tuple() -> u8 {
    key((((),),))[0]
}

#[test]
fn the_range_of_a_tuple_leaves_out_what_only_looks_like_an_extension() {
    let scan = Scan::range(range(&("a",)).unwrap());
    assert!(pack(&("a\0",)).unwrap().starts_with(&pack(&("a",)).unwrap()), "or this tests nothing");
    assert!(!scan.contains(&key(("a\0",))));
    assert!(scan.contains(&key(("a", None::<bool>))));
    assert!(scan.contains(&key(("a", Uuid::max()))));
    let all = Scan::range(range(&()).unwrap());
    assert!(all.contains(&key((None::<bool>,))) && all.contains(&key((Uuid::max(),))));
}

/// Text and bytes of few letters, among them those that the encoding escapes, so that tuples collide.
fn part_of_a_key() -> impl Strategy<Value = Part> {
    let float = prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY
        ]),
    ];
    let integer = prop_oneof![
        (-300i128..300).prop_map(BigInt::from),
        (0u32..70, -2i128..=2).prop_map(|(bits, near)| BigInt::from((1i128 << bits) + near)),
        (0u32..70, -2i128..=2).prop_map(|(bits, near)| BigInt::from(near - (1i128 << bits))),
        vec(any::<u8>(), 0..24).prop_map(|bytes| BigInt::from_signed_bytes_be(&bytes)),
    ];
    let time = (-377_705_023_201i64..=253_402_207_200, 0i32..1_000_000_000)
        .prop_map(|(second, nano)| Time(jiff::Timestamp::new(second, nano).unwrap()));
    let leaf = prop_oneof![
        Just(Part::Null),
        any::<bool>().prop_map(Part::Bool),
        integer.prop_map(Part::Integer),
        float.clone().prop_map(Part::Double),
        float.prop_map(|float| Part::Float(float as f32)),
        "[\u{0}\u{1}a\u{ff}@\u{10ffff}]{0,3}".prop_map(Part::Text),
        vec(prop::sample::select(vec![0u8, 1, 5, 0x7f, 0xfe, 0xff]), 0..4)
            .prop_map(|bytes| Part::Bytes(bytes.into())),
        time.prop_map(Part::Time),
        any::<u128>().prop_map(|bits| Part::Uuid(Uuid::from_u128(bits))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| vec(inner, 0..3).prop_map(Part::Tuple))
}

fn tuple() -> impl Strategy<Value = Vec<Part>> {
    vec(part_of_a_key(), 1..4)
}

/// Two tuples that often begin alike.
fn pair() -> impl Strategy<Value = (Vec<Part>, Vec<Part>)> {
    (vec(part_of_a_key(), 0..3), tuple(), tuple())
        .prop_map(|(head, a, b)| ([head.clone(), a].concat(), [head, b].concat()))
}

proptest! {
    #[test]
    fn keys_sort_as_tuples_do((a, b) in pair()) {
        prop_assert_eq!(key(a.clone()).cmp(&key(b.clone())), a.cmp(&b));
    }

    #[test]
    fn parts_come_back_with_their_types(a in tuple()) {
        let back: Vec<Part> = unpack(&key(a.clone())).unwrap();
        prop_assert_eq!(&back, &a);
        let same_types = back.iter().zip(&a).all(|(back, a)| {
            std::mem::discriminant(back) == std::mem::discriminant(a)
        });
        prop_assert!(same_types);
    }

    #[test]
    fn the_key_of_a_tuple_is_the_keys_of_its_parts(a in tuple(), b in tuple()) {
        prop_assert_eq!(key([a.clone(), b.clone()].concat()), [key(a), key(b)].concat());
    }

    #[test]
    fn keys_are_prefix_free((a, b) in pair()) {
        let (of_a, of_b) = (key(a.clone()), key(b.clone()));
        let extends = b.len() > a.len() && b.starts_with(&a);
        let begins = of_b.len() > of_a.len() && of_b.starts_with(&of_a);
        prop_assert_eq!(begins && of_b[of_a.len()] != 0xff, extends);
        prop_assert_eq!(Scan::range(range(&a).unwrap()).contains(&of_b), extends);
    }

    #[test]
    fn numbers_sort_whatever_their_type(a in any::<i64>(), b in any::<u128>(), c in any::<i16>()) {
        let by_value = BigInt::from(a).cmp(&BigInt::from(b));
        prop_assert_eq!(key((a,)).cmp(&key((b,))), by_value);
        prop_assert_eq!(key((i128::from(a),)), key((a,)));
        prop_assert_eq!(unpack::<(i64,)>(&key((c,))).unwrap().0, i64::from(c));
    }

    #[test]
    fn floats_are_in_total_order(a in any::<u32>(), b in any::<u32>()) {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        prop_assert_eq!(key((a,)).cmp(&key((b,))), a.total_cmp(&b));
        prop_assert_eq!(unpack::<(f32,)>(&key((a,))).unwrap().0.to_bits(), a.to_bits());
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_are_a_key(bytes in vec(any::<u8>(), 0..40)) {
        if let Ok(parts) = unpack::<Vec<Part>>(&bytes) && !parts.is_empty() {
            prop_assert_eq!(key(parts), bytes.clone());
        }
        let _ = unpack::<(Option<u16>, String)>(&bytes);
        let _ = unpack::<(i128, Vec<Option<u128>>)>(&bytes);
        let _ = unpack::<(Option<i16>, Time, Option<(BigInt, bool)>)>(&bytes);
        let _ = unpack::<(Vec<u8>, f32, f64, Uuid, usize)>(&bytes);
    }

    #[test]
    fn damaged_keys_are_refused_or_are_other_keys(
        a in tuple(), cut in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let whole = key(a.clone());
        let at = cut.index(whole.len());
        if let Ok(parts) = unpack::<Vec<Part>>(&whole[..at]) {
            prop_assert_eq!(parts.cmp(&a), Ordering::Less);
        }
        let mut flipped = whole;
        flipped[at] ^= 1 << bit;
        if let Ok(parts) = unpack::<Vec<Part>>(&flipped) {
            prop_assert_ne!(parts, a);
        }
    }
}
