//! A GGUF file, mapped: its metadata by key and its tensors by name, both as they lie in the file.

use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use super::{
    ModelError,
    header::{Header, HeaderError, Metadata},
};
use crate::kernels::map::FileMap;

/// An open model file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: FileMap,
    header: Header,
}

/// A tensor where it lies in the file.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Its name.
    pub name: &'a str,
    /// How its values are stored.
    pub dtype: GgmlDType,
    /// Out features; 1 for a vector.
    pub rows: usize,
    /// In features: the contiguous dimension.
    pub cols: usize,
    /// `rows` rows of `cols` values each, in blocks of `dtype`; aligned to at least 8 bytes.
    pub bytes: &'a [u8],
}

impl Gguf {
    /// Maps the file at `path` and reads its header. Every tensor is known to lie within the file afterwards.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let path = path.to_owned();
        let map = match FileMap::open(&path) {
            Ok(map) => map,
            Err(source) => return Err(ModelError::Open { path, source }),
        };
        let found = map.len() as u64;
        let header = match Header::parse(&map) {
            Ok(header) => header,
            Err(HeaderError::Foreign(why)) => return Err(ModelError::NotGguf { path, why }),
            Err(HeaderError::Damaged(why)) => return Err(ModelError::Damaged { path, why }),
            Err(HeaderError::TensorType { tensor, kind }) => return Err(ModelError::TensorType { tensor, kind }),
            Err(HeaderError::Ends(what)) => return Err(ModelError::Truncated { path, what, found }),
        };
        // The tensor that reaches furthest tells the size that the file should have.
        if let Some((name, tensor)) = header.tensors.iter().max_by_key(|(_, tensor)| tensor.start + tensor.len)
            && tensor.start + tensor.len > found
        {
            let what = format!("tensor `{name}`, which reaches to byte {}", tensor.start + tensor.len);
            return Err(ModelError::Truncated { path, what, found });
        }
        Ok(Self { path, map, header })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The value of `key`, `None` where the file does not have it.
    pub fn find<'a, T: Metadata<'a>>(&'a self, key: &str) -> Result<Option<T>, ModelError> {
        let Some(entry) = self.header.entries.get(key) else { return Ok(None) };
        let value = entry.decode(&self.map);
        value.map(Some).ok_or_else(|| ModelError::WrongKind { key: key.to_owned(), expected: T::EXPECTED })
    }

    /// The value of `key`, which must be there.
    pub fn get<'a, T: Metadata<'a>>(&'a self, key: &str) -> Result<T, ModelError> {
        self.find(key)?.ok_or_else(|| ModelError::MissingKey { key: key.to_owned() })
    }

    /// The text under `key`.
    pub fn str(&self, key: &str) -> Result<&str, ModelError> {
        self.get(key)
    }

    /// The whole number under `key`.
    pub fn u32(&self, key: &str) -> Result<u32, ModelError> {
        self.get(key)
    }

    /// The whole number under `key`.
    pub fn usize(&self, key: &str) -> Result<usize, ModelError> {
        self.get(key)
    }

    /// The number under `key`.
    pub fn f32(&self, key: &str) -> Result<f32, ModelError> {
        self.get(key)
    }

    /// The truth value under `key`.
    pub fn bool(&self, key: &str) -> Result<bool, ModelError> {
        self.get(key)
    }

    /// The texts under `key`.
    pub fn strings(&self, key: &str) -> Result<Vec<&str>, ModelError> {
        self.get(key)
    }

    /// Whether there is a tensor `name`.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// The tensor `name`.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, ModelError> {
        let (name, tensor) = self
            .header
            .tensors
            .get_key_value(name)
            .ok_or_else(|| ModelError::MissingTensor { name: name.to_owned() })?;
        // `open` has checked that the range lies within the map, so it also fits a usize.
        let bytes = &self.map[tensor.start as usize..(tensor.start + tensor.len) as usize];
        Ok(TensorView { name, dtype: tensor.dtype, rows: tensor.rows, cols: tensor.cols, bytes })
    }

    /// The names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }
}
