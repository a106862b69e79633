//! A part of a key whose type is known at run time only.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io;

use bytes::Bytes;
use foundationdb_tuple::{
    PackError, PackResult, TupleDepth, TuplePack, TupleUnpack, Uuid, VersionstampOffset,
};
use num_bigint::BigInt;

use super::error::{malformed, refuse};
use super::time::{TAG, Time, within_tuple};

/// How many tuples may be inside one another below the key: a bound on the stack that decoding
/// untrusted bytes can use.
pub const MAX_NESTING: usize = 64;

/// A part of a tuple key, of any type. `Vec<Part>` is a tuple of them.
///
/// Compares as its bytes do, so floats are in total order: NaN equals itself, and -0.0 is not 0.0.
///
/// ```
/// use tierstack::keys::{self, Part};
///
/// let tuple = vec![Part::from("user"), Part::from(42), Part::Null];
/// let key = keys::pack(&tuple)?;
/// assert_eq!(keys::unpack::<Vec<Part>>(&key)?, tuple);
/// assert_eq!(key, keys::pack(&("user", 42, None::<bool>))?);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Part {
    /// Nothing.
    Null,
    /// Bytes.
    Bytes(Bytes),
    /// Text.
    Text(String),
    /// A tuple within the tuple, which must not begin with the text `@time`.
    Tuple(Vec<Self>),
    /// A moment.
    Time(Time),
    /// An integer of up to 255 bytes.
    Integer(BigInt),
    /// A number of 32 bits, with a fraction.
    Float(f32),
    /// A number of 64 bits, with a fraction.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// A UUID.
    Uuid(Uuid),
}

/// The bytes that parts begin with.
mod code {
    pub(super) const NULL: u8 = 0x00;
    pub(super) const BYTES: u8 = 0x01;
    pub(super) const TEXT: u8 = 0x02;
    pub(super) const TUPLE: u8 = 0x05;
    /// From the negative integers of more than 8 bytes to the positive ones.
    pub(super) const INTEGER: std::ops::RangeInclusive<u8> = 0x0b..=0x1d;
    pub(super) const FLOAT: u8 = 0x20;
    pub(super) const DOUBLE: u8 = 0x21;
    pub(super) const FALSE: u8 = 0x26;
    pub(super) const TRUE: u8 = 0x27;
    pub(super) const UUID: u8 = 0x30;
}

impl Part {
    /// Parts of different types sort by the byte they begin with; all integers begin alike here.
    fn rank(&self) -> u8 {
        match self {
            Self::Null => code::NULL,
            Self::Bytes(_) => code::BYTES,
            Self::Text(_) => code::TEXT,
            Self::Tuple(_) | Self::Time(_) => code::TUPLE,
            Self::Integer(_) => *code::INTEGER.start(),
            Self::Float(_) => code::FLOAT,
            Self::Double(_) => code::DOUBLE,
            Self::Bool(_) => code::FALSE,
            Self::Uuid(_) => code::UUID,
        }
    }

    /// A time as the tuple that it is written as.
    fn of_time(time: Time) -> [Self; 2] {
        [Self::Text(TAG.to_owned()), Self::Integer(time.as_nanos().into())]
    }
}

impl Ord for Part {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Tuple(a), Self::Tuple(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Tuple(a), Self::Time(b)) => a.as_slice().cmp(&Self::of_time(*b)),
            (Self::Time(a), Self::Tuple(b)) => Self::of_time(*a).as_slice().cmp(b),
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Part {}

impl TuplePack for Part {
    fn pack<W: io::Write>(&self, to: &mut W, depth: TupleDepth) -> io::Result<VersionstampOffset> {
        let depth = within_tuple(depth);
        if depth.depth() > MAX_NESTING && matches!(self, Self::Tuple(_) | Self::Time(_)) {
            return Err(refuse(format!("a tuple key nests at most {MAX_NESTING} tuples")));
        }
        match self {
            Self::Null => None::<bool>.pack(to, depth),
            Self::Bytes(bytes) => bytes.as_ref().pack(to, depth),
            Self::Text(text) => text.pack(to, depth),
            Self::Tuple(parts) => {
                if matches!(parts.first(), Some(Self::Text(tag)) if tag == TAG) {
                    return Err(refuse(format!(
                        "a nested tuple must not begin with the text {TAG:?}, which marks a time; use `Part::Time`"
                    )));
                }
                parts.pack(to, depth)
            }
            Self::Time(time) => time.pack(to, depth),
            Self::Integer(integer) => integer.pack(to, depth),
            Self::Float(float) => float.pack(to, depth),
            Self::Double(double) => double.pack(to, depth),
            Self::Bool(bool) => bool.pack(to, depth),
            Self::Uuid(uuid) => uuid.pack(to, depth),
        }
    }
}

impl<'k> TupleUnpack<'k> for Part {
    fn unpack(input: &'k [u8], depth: TupleDepth) -> PackResult<(&'k [u8], Self)> {
        let depth = within_tuple(depth);
        let code = *input.first().ok_or(PackError::MissingBytes)?;
        Ok(match code {
            code::NULL => part(Option::<bool>::unpack(input, depth)?, |_| Self::Null),
            code::BYTES => part(Vec::<u8>::unpack(input, depth)?, |v| Self::Bytes(v.into())),
            code::TEXT => part(Cow::<str>::unpack(input, depth)?, |v| Self::Text(v.into_owned())),
            code::TUPLE => {
                // The decoder itself would recurse as deep as the bytes say.
                if depth.depth() > MAX_NESTING {
                    return Err(malformed("tuples nested too deep"));
                }
                let (rest, parts) = Vec::<Self>::unpack(input, depth)?;
                if matches!(parts.first(), Some(Self::Text(tag)) if tag == TAG) {
                    part(Time::unpack(input, depth)?, Self::Time)
                } else {
                    (rest, Self::Tuple(parts))
                }
            }
            _ if code::INTEGER.contains(&code) => {
                part(BigInt::unpack(input, depth)?, Self::Integer)
            }
            code::FLOAT => part(f32::unpack(input, depth)?, Self::Float),
            code::DOUBLE => part(f64::unpack(input, depth)?, Self::Double),
            code::FALSE | code::TRUE => part(bool::unpack(input, depth)?, Self::Bool),
            code::UUID => part(Uuid::unpack(input, depth)?, Self::Uuid),
            found => return Err(PackError::BadCode { found, expected: None }),
        })
    }
}

fn part<T>((rest, value): (&[u8], T), wrap: impl FnOnce(T) -> Part) -> (&[u8], Part) {
    (rest, wrap(value))
}

macro_rules! from {
    ($($from:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$from> for Part {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}

from! {
    &str => Text, String => Text, Bytes => Bytes, Vec<Self> => Tuple, Time => Time,
    i32 => Integer, i64 => Integer, i128 => Integer, u32 => Integer, u64 => Integer, u128 => Integer,
    BigInt => Integer, f32 => Float, f64 => Double, bool => Bool, Uuid => Uuid,
}
