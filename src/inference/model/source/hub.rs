//! A model as a file on the Hugging Face hub: where it is, and with the feature `hub` how it is downloaded.

#[cfg(feature = "hub")]
mod download;

/// A file on the Hugging Face hub, at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name` of the repository.
    pub repo: &'static str,
    /// The commit.
    pub revision: &'static str,
    /// The file's path in the repository.
    pub file: &'static str,
    /// A mirror to use instead of the hub; `None` asks `HF_ENDPOINT` and then the hub itself.
    pub endpoint: Option<String>,
}

impl HubFile {
    /// The address for somebody who downloads the file by hand.
    pub fn address(&self) -> String {
        format!("https://huggingface.co/{}/resolve/{}/{}", self.repo, self.revision, self.file)
    }
}
