//! The header of a GGUF file: where each metadata value and each tensor lies. Values stay in the file and are decoded
//! when asked for, so that a vocabulary of 100,000 strings is not held twice.
//!
//! candle's reader is not used, because it cannot name the tensor whose type it does not know, and copies every value.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::{BTreeMap, HashMap};

use candle_core::quantized::GgmlDType;

/// Why a header cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Not GGUF, or a version that is not read.
    Foreign(String),
    /// The bytes end within a part of the header.
    Ends(String),
    /// A contradiction.
    Damaged(String),
    /// A tensor type that candle does not know.
    TensorType { tensor: String, kind: String },
}

/// Where a metadata value lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    kind: u32,
    at: usize,
}

/// A tensor of the index.
#[derive(Debug, Clone)]
pub(super) struct TensorEntry {
    pub dtype: GgmlDType,
    /// Out features; 1 for a vector.
    pub rows: usize,
    /// In features: the contiguous dimension.
    pub cols: usize,
    /// First byte, from the start of the file.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// The parsed header.
#[derive(Debug)]
pub(super) struct Header {
    pub entries: HashMap<String, Entry>,
    pub tensors: BTreeMap<String, TensorEntry>,
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
/// Arrays of arrays are allowed by the format; deeper than this is an attack on the stack.
const MAX_DEPTH: usize = 8;

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut reader = Reader { bytes, at: 0 };
        if bytes.len() < 8 || &bytes[..4] != b"GGUF" {
            return Err(HeaderError::Foreign("it does not begin with `GGUF`".into()));
        }
        reader.at = 4;
        let version = reader.u32().unwrap_or(0);
        if !(2..=3).contains(&version) {
            return Err(HeaderError::Foreign(if (2..=3).contains(&version.swap_bytes()) {
                "it is GGUF for big-endian machines".into()
            } else {
                format!("it is GGUF version {version}; versions 2 and 3 are read")
            }));
        }
        let ends = |what: &str| HeaderError::Ends(what.to_owned());
        let tensor_count = reader.u64().ok_or_else(|| ends("the header"))?;
        let entry_count = reader.u64().ok_or_else(|| ends("the header"))?;

        let mut entries = HashMap::new();
        for _ in 0..entry_count {
            let key = reader.string().ok_or_else(|| ends("the metadata"))?;
            let key = String::from_utf8_lossy(key).into_owned();
            let kind = reader.u32().ok_or_else(|| ends("the metadata"))?;
            let entry = Entry { kind, at: reader.at };
            reader.skip(kind, 0).map_err(|fault| match fault {
                Fault::Ends => HeaderError::Ends(format!("metadata `{key}`")),
                Fault::Kind(kind) => HeaderError::Damaged(format!("`{key}` has a value of unknown kind {kind}")),
            })?;
            if entries.insert(key.clone(), entry).is_some() {
                return Err(HeaderError::Damaged(format!("`{key}` is there twice")));
            }
        }

        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let (name, tensor) = reader.tensor()?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(HeaderError::Damaged(format!("tensor `{name}` is there twice")));
            }
        }

        let alignment = match entries.get("general.alignment") {
            None => 32,
            Some(entry) => entry.decode::<u32>(bytes).map_or(0, u64::from),
        };
        if alignment == 0 || !alignment.is_multiple_of(8) {
            return Err(HeaderError::Damaged("`general.alignment` is not a multiple of 8".into()));
        }
        let data = (reader.at as u64).next_multiple_of(alignment);
        for (name, tensor) in &mut tensors {
            if !tensor.start.is_multiple_of(alignment) {
                return Err(HeaderError::Damaged(format!("tensor `{name}` is not aligned to {alignment} bytes")));
            }
            tensor.start = tensor
                .start
                .checked_add(data)
                .filter(|start| start.checked_add(tensor.len).is_some())
                .ok_or_else(|| HeaderError::Damaged(format!("tensor `{name}` has an impossible offset")))?;
        }
        Ok(Self { entries, tensors })
    }
}

impl Entry {
    /// The value, if it is of the kind asked for.
    pub(super) fn decode<'a, T: Metadata<'a>>(self, bytes: &'a [u8]) -> Option<T> {
        T::decode(self.kind, &mut Reader { bytes, at: self.at })
    }
}

/// A Rust type that a metadata value can be read as.
pub trait Metadata<'a>: Sized {
    /// What such a value is called in an error.
    const EXPECTED: &'static str;
    #[doc(hidden)]
    fn decode(kind: u32, reader: &mut Reader<'a>) -> Option<Self>;
}

impl<'a> Metadata<'a> for &'a str {
    const EXPECTED: &'static str = "a text";
    fn decode(kind: u32, reader: &mut Reader<'a>) -> Option<Self> {
        if kind != STRING {
            return None;
        }
        std::str::from_utf8(reader.string()?).ok()
    }
}

impl<'a> Metadata<'a> for bool {
    const EXPECTED: &'static str = "true or false";
    fn decode(kind: u32, reader: &mut Reader<'a>) -> Option<Self> {
        match (kind, reader.take(1)?) {
            (7, [0]) => Some(false),
            (7, [1]) => Some(true),
            _ => None,
        }
    }
}

impl<'a> Metadata<'a> for f32 {
    const EXPECTED: &'static str = "a number";
    fn decode(kind: u32, reader: &mut Reader<'a>) -> Option<Self> {
        match kind {
            6 => reader.u32().map(f32::from_bits),
            12 => reader.u64().map(|bits| f64::from_bits(bits) as f32),
            _ => None,
        }
    }
}

/// Every integer kind of the format is read as any integer that holds it.
fn integer(kind: u32, reader: &mut Reader<'_>) -> Option<i128> {
    Some(match kind {
        0 => i128::from(reader.array::<1>().map(u8::from_le_bytes)?),
        1 => i128::from(reader.array::<1>().map(i8::from_le_bytes)?),
        2 => i128::from(reader.array::<2>().map(u16::from_le_bytes)?),
        3 => i128::from(reader.array::<2>().map(i16::from_le_bytes)?),
        4 => i128::from(reader.u32()?),
        5 => i128::from(reader.array::<4>().map(i32::from_le_bytes)?),
        10 => i128::from(reader.u64()?),
        11 => i128::from(reader.array::<8>().map(i64::from_le_bytes)?),
        _ => return None,
    })
}

macro_rules! integer_metadata {
    ($($kind:ty),*) => {$(
        impl<'a> Metadata<'a> for $kind {
            const EXPECTED: &'static str = concat!("a whole number (", stringify!($kind), ")");
            fn decode(kind: u32, reader: &mut Reader<'a>) -> Option<Self> {
                Self::try_from(integer(kind, reader)?).ok()
            }
        }
    )*};
}
integer_metadata!(u32, u64, usize, i32);

impl<'a, T: Metadata<'a>> Metadata<'a> for Vec<T> {
    const EXPECTED: &'static str = "a list of the expected kind";
    fn decode(kind: u32, reader: &mut Reader<'a>) -> Option<Self> {
        if kind != ARRAY {
            return None;
        }
        let item = reader.u32()?;
        let len = reader.u64()?;
        (0..len).map(|_| T::decode(item, reader)).collect()
    }
}

enum Fault {
    Ends,
    Kind(u32),
}

/// A position in the bytes of a file. Every read checks the end.
#[doc(hidden)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let part = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(part)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u64()?;
        self.take(usize::try_from(len).ok()?)
    }

    fn skip(&mut self, kind: u32, depth: usize) -> Result<(), Fault> {
        let fixed = |kind| match kind {
            0 | 1 | 7 => Some(1u64),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        match kind {
            STRING => self.string().map(drop).ok_or(Fault::Ends),
            ARRAY if depth < MAX_DEPTH => {
                let item = self.u32().ok_or(Fault::Ends)?;
                let len = self.u64().ok_or(Fault::Ends)?;
                if let Some(size) = fixed(item) {
                    let bytes = len.checked_mul(size).and_then(|bytes| usize::try_from(bytes).ok());
                    return bytes.and_then(|bytes| self.take(bytes)).map(drop).ok_or(Fault::Ends);
                }
                (0..len).try_for_each(|_| self.skip(item, depth + 1))
            }
            _ => {
                let size = fixed(kind).ok_or(Fault::Kind(kind))?;
                self.take(size as usize).map(drop).ok_or(Fault::Ends)
            }
        }
    }

    /// One entry of the tensor index; `start` still counts from the start of the data.
    fn tensor(&mut self) -> Result<(String, TensorEntry), HeaderError> {
        let ends = || HeaderError::Ends("the tensor index".into());
        let name = String::from_utf8_lossy(self.string().ok_or_else(ends)?).into_owned();
        let dims = self.u32().ok_or_else(ends)?;
        if !(1..=4).contains(&dims) {
            return Err(HeaderError::Damaged(format!("tensor `{name}` has {dims} dimensions")));
        }
        let mut sizes = [1u64; 4];
        for size in &mut sizes[..dims as usize] {
            *size = self.u64().ok_or_else(ends)?;
        }
        let kind = self.u32().ok_or_else(ends)?;
        let start = self.u64().ok_or_else(ends)?;
        let dtype =
            dtype(kind).ok_or_else(|| HeaderError::TensorType { tensor: name.clone(), kind: type_name(kind) })?;

        let impossible = || HeaderError::Damaged(format!("tensor `{name}` has an impossible size {sizes:?}"));
        let [cols, rows @ ..] = sizes;
        let rows = rows.into_iter().try_fold(1u64, |all, size| all.checked_mul(size)).ok_or_else(impossible)?;
        let block = dtype.block_size() as u64;
        if rows == 0 || cols == 0 || !cols.is_multiple_of(block) {
            return Err(impossible());
        }
        let len = (cols / block)
            .checked_mul(dtype.type_size() as u64)
            .and_then(|row| row.checked_mul(rows))
            .ok_or_else(impossible)?;
        let narrow = |size| usize::try_from(size).map_err(|_| impossible());
        let tensor = TensorEntry { dtype, rows: narrow(rows)?, cols: narrow(cols)?, start, len };
        Ok((name, tensor))
    }
}

/// The types candle computes with, by their number in the file.
fn dtype(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        9 => GgmlDType::Q8_1,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        15 => GgmlDType::Q8K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// What ggml calls the types that candle does not know.
fn type_name(kind: u32) -> String {
    match kind {
        4 => "Q4_2",
        5 => "Q4_3",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        42 => "Q2_0",
        _ => return format!("number {kind}"),
    }
    .to_owned()
}
