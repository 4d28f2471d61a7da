//! A GGUF file, mapped: its metadata by key and its tensors by name, both as they lie in the file.

use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use sha2::{Digest, Sha256};

use super::{
    ModelError,
    header::{Header, HeaderError, Metadata},
};
use crate::kernels::map::FileMap;

/// Bytes of each tensor that a fingerprint takes in.
const FINGERPRINT_BYTES: usize = 256;

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
    pub(crate) fn strings(&self, key: &str) -> Result<Vec<&str>, ModelError> {
        self.get(key)
    }

    /// Whether there is a tensor `name`.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
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

    /// Says that the tensor `name` has been taken over: its bytes need not stay in memory a second time.
    pub fn release(&self, name: &str) {
        if let Some(tensor) = self.header.tensors.get(name) {
            self.map.release(tensor.start as usize..(tensor.start + tensor.len) as usize);
        }
    }

    /// What tells this file from other models' in a moment, in hexadecimal: the SHA-256 of the whole header (metadata,
    /// and the tensors' names, types and sizes) and of the first bytes of every tensor. A hash of everything would read
    /// gigabytes at every start; the same model trained further or quantised otherwise differs in every tensor.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let header = self.header.tensors.values().map(|tensor| tensor.start).min().unwrap_or(self.file_bytes());
        hash.update(&self.map[..header as usize]);
        for tensor in self.header.tensors.values() {
            let bytes = &self.map[tensor.start as usize..(tensor.start + tensor.len) as usize];
            hash.update(&bytes[..bytes.len().min(FINGERPRINT_BYTES)]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use candle_core::{Device, quantized::gguf_file};

    use super::*;
    use crate::model::tiny::Tiny;

    /// Opens `bytes` as a file of their own.
    fn open(bytes: &[u8]) -> Result<Gguf, ModelError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        Gguf::open(file.path())
    }

    fn error_of(bytes: &[u8]) -> String {
        let error = open(bytes).expect_err("the file is refused").to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    /// Where the type of a two-dimensional tensor stands in the header.
    fn type_at(bytes: &[u8], name: &str) -> usize {
        bytes.windows(name.len()).position(|part| part == name.as_bytes()).unwrap() + name.len() + 4 + 16
    }

    #[test]
    fn tensors_are_what_candle_reads() {
        for dtype in [GgmlDType::F32, GgmlDType::F16, GgmlDType::Q8_0, GgmlDType::Q4_1, GgmlDType::Q5_0] {
            let path = Tiny { dtype, tied: false, ..Tiny::default() }.temp();
            let gguf = Gguf::open(&path).unwrap();
            let mut file = fs::File::open(&path).unwrap();
            let content = gguf_file::Content::read(&mut file).unwrap();
            assert_eq!(gguf.tensor_names().count(), content.tensor_infos.len());
            for (name, info) in &content.tensor_infos {
                let view = gguf.tensor(name).unwrap();
                assert_eq!(view.dtype, info.ggml_dtype);
                let dims = info.shape.dims();
                assert_eq!((view.rows, view.cols), if let [len] = *dims { (1, len) } else { (dims[0], dims[1]) });
                let theirs = content.tensor(&mut file, name, &Device::Cpu).unwrap();
                assert_eq!(view.bytes, &*theirs.data().unwrap(), "{name}");
            }
            assert_eq!(gguf.file_bytes(), fs::metadata(&path).unwrap().len());
        }
    }

    #[test]
    fn a_fingerprint_tells_models_apart() {
        let of = |tiny: Tiny| Gguf::open(&tiny.temp()).unwrap().fingerprint();
        let one = of(Tiny::default());
        assert_eq!((one.len(), &one), (64, &of(Tiny::default())));
        let others = [
            Tiny { seed: Tiny::default().seed + 1, ..Tiny::default() },
            Tiny { dtype: GgmlDType::F16, ..Tiny::default() },
            Tiny { layers: 3, ..Tiny::default() },
        ];
        for other in others {
            assert_ne!(one, of(other));
        }
    }

    #[test]
    fn metadata_is_typed_and_errors_name_the_key() {
        let path = Tiny::default().temp();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.str("general.name").unwrap(), "tiny");
        assert_eq!(gguf.usize("llama.block_count").unwrap(), 2);
        assert!(!gguf.bool("tokenizer.ggml.add_bos_token").unwrap());
        assert_eq!(gguf.f32("llama.rope.freq_base").unwrap(), 10_000.0);
        assert_eq!(gguf.get::<Vec<i32>>("tokenizer.ggml.token_type").unwrap()[..4], [3, 3, 3, 1]);
        assert_eq!(gguf.strings("tokenizer.ggml.merges").unwrap()[0], "t h");
        assert_eq!(gguf.find::<&str>("general.absent").unwrap(), None);
        for error in [gguf.u32("general.absent").unwrap_err(), gguf.u32("general.name").unwrap_err()] {
            assert!(error.to_string().contains("general."), "{error}");
        }
        assert!(gguf.tensor("absent.weight").unwrap_err().to_string().contains("absent.weight"));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = fs::read(Tiny::default().temp()).unwrap();
        for len in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
            let error = error_of(&whole[..len]);
            let word = if len < 8 { "GGUF" } else { "incomplete" };
            assert!(error.contains(word), "{len}: {error}");
        }
        let error = error_of(&whole[..whole.len() - 40]);
        assert!(error.contains("output_norm.weight"), "the tensor is named: {error}");
    }

    #[test]
    fn what_is_not_read_is_named() {
        let whole = fs::read(Tiny::default().temp()).unwrap();
        assert!(error_of(b"PK\x03\x04 a zip, not a model").contains("GGUF"));
        let with = |at: usize, part: &[u8]| {
            let mut bytes = whole.clone();
            bytes[at..at + part.len()].copy_from_slice(part);
            bytes
        };
        assert!(error_of(&with(4, &1u32.to_le_bytes())).contains("version 1"));
        assert!(error_of(&with(4, &3u32.to_be_bytes())).contains("big-endian"));

        let name = "blk.1.ffn_up.weight";
        for (kind, word) in [(23u32, "IQ4_XS"), (39, "MXFP4"), (34, "TQ1_0"), (777, "777")] {
            let error = error_of(&with(type_at(&whole, name), &kind.to_le_bytes()));
            assert!(error.contains(word) && error.contains(name), "{error}");
        }
        let cols = type_at(&whole, name) - 16;
        assert!(error_of(&with(cols, &u64::MAX.to_le_bytes())).contains(name));
        assert!(error_of(&with(cols, &0u64.to_le_bytes())).contains("damaged"));
        let offset = type_at(&whole, name) + 4;
        assert!(error_of(&with(offset, &(u64::MAX - 31).to_le_bytes())).contains("offset"));
        assert!(error_of(&with(offset, &7u64.to_le_bytes())).contains("aligned"));
    }

    #[test]
    fn an_absent_file_is_named() {
        let error = Gguf::open(Path::new("no/such/model.gguf")).unwrap_err().to_string();
        assert!(error.contains("no/such/model.gguf"), "{error}");
        assert!(matches!(Gguf::open(&std::env::temp_dir()), Err(ModelError::Open { .. })));
    }

    proptest::proptest! {
        #[test]
        fn damaged_headers_never_panic(at in 0usize..9_000, byte: u8) {
            static WHOLE: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| fs::read(Tiny::default().temp()).unwrap());
            let mut bytes = WHOLE.clone();
            bytes[at] = byte;
            if let Ok(gguf) = open(&bytes) {
                // Whatever still opens is read through without a panic.
                let _ = (crate::model::ModelShape::from_gguf(&gguf), crate::model::Tokenizer::from_gguf(&gguf).err());
            }
        }
    }
}
