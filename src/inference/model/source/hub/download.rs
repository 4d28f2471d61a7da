//! The download from the hub, with its own client.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::{
        Progress as HubProgress,
        sync::{ApiBuilder, ApiError},
    },
};

use super::HubFile;
use crate::model::source::{
    Delivery, FetchError, FetchProgress, KnownModel, Source, Stage, error::at, fetch::hash_file,
};

const POLL: Duration = Duration::from_millis(50);
/// The hub's client waits without end; nothing for this long counts as unreachable.
const SILENCE: Duration = Duration::from_secs(30);

impl Source for HubFile {
    fn name(&self) -> String {
        "Hugging Face".to_owned()
    }

    fn describe(&self) -> String {
        format!("Hugging Face {} at {}", self.repo, self.revision)
    }

    fn peak_bytes(&self, known: &KnownModel) -> u64 {
        known.bytes
    }

    fn deliver(
        &self,
        known: &KnownModel,
        work: &Path,
        progress: &mut dyn FnMut(FetchProgress),
        cancel: &AtomicBool,
    ) -> Result<Delivery, FetchError> {
        let path = self.download(known, work, progress, cancel)?;
        let (file, passed) = hash_file(&path, known, progress, cancel)?;
        file.sync_all().map_err(|source| at(&path, source))?;
        Ok(Delivery { path, passed })
    }
}

impl HubFile {
    /// Downloads on a thread of its own, because the client cannot be stopped. When the caller stops waiting, the
    /// thread goes on writing into a file that is already removed and ends with the process.
    fn download(
        &self,
        known: &KnownModel,
        work: &Path,
        progress: &mut dyn FnMut(FetchProgress),
        cancel: &AtomicBool,
    ) -> Result<PathBuf, FetchError> {
        let done = Arc::new(AtomicU64::new(0));
        let (send, receive) = mpsc::channel();
        let (job, counter, cache) = (self.clone(), Counter(Arc::clone(&done)), work.join("hub"));
        let started = thread::Builder::new().name("hub".into()).spawn(move || send.send(job.get(cache, counter)));
        started.map_err(|error| self.refused(error.to_string()))?;

        let mut heard = (0, Instant::now());
        loop {
            match receive.recv_timeout(POLL) {
                Ok(result) => return result.map_err(|error| self.explain(&error, work)),
                Err(RecvTimeoutError::Disconnected) => return Err(self.refused("its client failed".to_owned())),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if cancel.load(Ordering::Relaxed) {
                return Err(FetchError::Cancelled);
            }
            let done = done.load(Ordering::Relaxed).min(known.bytes);
            progress(FetchProgress { stage: Stage::Downloading, done, total: known.bytes });
            if done != heard.0 {
                heard = (done, Instant::now());
            } else if heard.1.elapsed() > SILENCE {
                let why = format!("no answer for {} s", SILENCE.as_secs());
                return Err(FetchError::Offline { source_name: self.name(), why });
            }
        }
    }

    fn get(&self, cache: PathBuf, counter: Counter) -> Result<PathBuf, ApiError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(cache)).with_token(None).with_progress(false);
        if let Some(endpoint) = self.endpoint.clone().or_else(|| std::env::var("HF_ENDPOINT").ok()) {
            builder = builder.with_endpoint(endpoint);
        }
        let repo = Repo::with_revision(self.repo.to_owned(), RepoType::Model, self.revision.to_owned());
        let link = builder.build()?.repo(repo).download_with_progress(self.file, counter)?;
        // The client's cache links to the file; what is moved into place is the file itself.
        Ok(link.canonicalize()?)
    }

    fn refused(&self, why: String) -> FetchError {
        FetchError::Refused { source_name: self.name(), why }
    }

    fn explain(&self, error: &ApiError, work: &Path) -> FetchError {
        match error {
            ApiError::IoError(error) if error.kind() == io::ErrorKind::StorageFull => {
                at(work, io::ErrorKind::StorageFull.into())
            }
            // The client's error type is not re-exported; an HTTP status is an answer, everything else is none.
            ApiError::RequestError(error) if !error.to_string().starts_with("http status") => {
                FetchError::Offline { source_name: self.name(), why: error.to_string() }
            }
            ApiError::IoError(error) => FetchError::Offline { source_name: self.name(), why: error.to_string() },
            other => self.refused(other.to_string()),
        }
    }
}

/// Counts the bytes that came.
struct Counter(Arc<AtomicU64>);

impl HubProgress for Counter {
    fn init(&mut self, _size: usize, _filename: &str) {}

    fn update(&mut self, size: usize) {
        self.0.fetch_add(size as u64, Ordering::Relaxed);
    }

    fn finish(&mut self) {}
}
