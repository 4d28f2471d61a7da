//! Profiles: how many rows each query head of a model reads, learnt from that model by `kcache tune`.
//!
//! A policy carries only the name of its profile, interned, so that it can be copied freely. The table itself is read
//! when the policy is applied to a model ([`super::Policy::on`]), and refused where it belongs to another model. A file
//! holds splits for several means of rows; between two of them each head's rows are interpolated, so that any `n` can
//! be asked for.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    path::Path,
    ptr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use serde::Deserialize;
use thiserror::Error;

use crate::files;

/// The profile that comes with the program, by the name that policies call it.
const BUILT_IN: &str = "default";
const BUILT_IN_TEXT: &str = include_str!("../../../assets/profiles/smollm2-135m-instruct-q4_1.toml");

/// The largest profile that is read, far more than the largest model's.
const LARGEST_MIB: u64 = 16;

/// What a profile has to fit: a model's fingerprint and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    /// Of the model's file, in hexadecimal.
    pub fingerprint: String,
    /// Transformer layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
}

/// A profile by its name.
#[derive(Clone, Copy)]
pub struct Profile(&'static Entry);

struct Entry {
    name: String,
    table: OnceLock<Table>,
    /// Splits that were asked for, by their mean: each is made once and kept, as many as there are values that `n`
    /// took.
    made: Mutex<BTreeMap<usize, &'static [LayerSplit]>>,
}

/// What one layer's query heads read.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSplit {
    /// Rows of each query head, at least 1.
    pub rows: Vec<u32>,
    /// How far each query head's mean tail leans to the mean of the rows it read, 0 to 1.
    pub lean: Vec<f32>,
}

/// A split of rows over all heads, as long as the program runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitOf {
    /// Rows of each query head of a layer.
    pub rows: &'static [u32],
    /// Their leans.
    pub lean: &'static [f32],
}

/// What a profile's file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The model's name, for people.
    pub model: String,
    /// The fingerprint of the model's file.
    pub fingerprint: String,
    /// Splits by their mean of rows, ascending.
    pub split: Vec<Split>,
}

/// A split of rows over all heads of a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Rows per head on average: what `n` says in a policy.
    pub n: usize,
    /// Rows of each head, `[layers][heads]`.
    pub rows: Vec<Vec<u32>>,
    /// The lean of each head's tail, `[layers][heads]`.
    pub lean: Vec<Vec<f32>>,
}

/// Why a profile cannot be used. One line each.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ProfileError {
    /// No such file, or one that cannot be read.
    #[error("profile `{name}` cannot be read: {source}; make one with `kcache tune`")]
    Read { name: String, source: std::io::Error },
    /// It is no profile.
    #[error("profile `{name}`: {why}; make one with `kcache tune`")]
    Malformed { name: String, why: String },
    /// It was made for another model.
    #[error("profile `{name}` was made for another model ({model}): make one for this model with `kcache tune`")]
    OtherModel { name: String, model: String },
}

impl Profile {
    /// The profile that a policy calls `name`: `default`, or the path of a file. Nothing is read yet.
    pub fn named(name: &str) -> Self {
        static KNOWN: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());
        let mut known = lock(&KNOWN);
        if let Some(entry) = known.iter().find(|entry| entry.name == name) {
            return Self(entry);
        }
        let entry = Entry { name: name.to_owned(), table: OnceLock::new(), made: Mutex::default() };
        let entry: &'static Entry = Box::leak(Box::new(entry));
        known.push(entry);
        Self(entry)
    }

    /// The profile that comes with the program, where it is this model's.
    pub(crate) fn built_in(model: &ModelId) -> Option<Self> {
        let profile = Self::named(BUILT_IN);
        profile.load(model).is_ok().then_some(profile)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        &self.0.name
    }

    /// Reads the profile, where that was not done yet, and makes sure that it is this model's. A file is read once as
    /// long as the program runs.
    pub fn load(self, model: &ModelId) -> Result<(), ProfileError> {
        let table = self.table()?;
        if table.fits(model) {
            Ok(())
        } else {
            Err(ProfileError::OtherModel { name: self.0.name.clone(), model: table.model.clone() })
        }
    }

    /// The name of the model that it was made for, as the profile says it. Reads the profile where that was not done
    /// yet.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is no profile.
    pub fn model(self) -> Result<&'static str, ProfileError> {
        Ok(&self.table()?.model)
    }

    fn table(self) -> Result<&'static Table, ProfileError> {
        let name = || self.0.name.clone();
        if self.0.table.get().is_none() {
            let text = match self.name() {
                BUILT_IN => BUILT_IN_TEXT.to_owned(),
                path => files::read_text(Path::new(path), LARGEST_MIB)
                    .map_err(|source| ProfileError::Read { name: name(), source })?,
            };
            let table = Table::parse(&text).map_err(|why| ProfileError::Malformed { name: name(), why })?;
            // Where two read it at once, both have read the same file.
            let _ = self.0.table.set(table);
        }
        let nothing = || ProfileError::Malformed { name: name(), why: "nothing was read".to_owned() };
        self.0.table.get().ok_or_else(nothing)
    }

    /// What the heads of a layer read where `n` is the mean; `None` before the profile was loaded.
    pub fn layer(self, n: usize, layer: usize) -> Option<SplitOf> {
        let made = {
            let table = self.0.table.get()?;
            let mut made = lock(&self.0.made);
            *made.entry(n).or_insert_with(|| Box::leak(table.at(n).into_boxed_slice()))
        };
        made.get(layer).map(|LayerSplit { rows, lean }| SplitOf { rows, lean })
    }
}

impl Table {
    /// Reads the text of a profile; says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].lines().count().max(1));
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{line}{}", error.message().lines().collect::<Vec<_>>().join(" "))
        })?;
        let Some(first) = table.split.first() else { return Err("it has no split".into()) };
        let (layers, heads) = (first.rows.len(), first.rows.first().map_or(0, Vec::len));
        if heads == 0 {
            return Err("its first split has no heads".into());
        }
        for split in &table.split {
            let n = split.n;
            let mut lens = split.rows.iter().map(Vec::len).chain(split.lean.iter().map(Vec::len));
            if (split.rows.len(), split.lean.len()) != (layers, layers) || lens.any(|len| len != heads) {
                return Err(format!("the split n = {n} has not the same layers and heads everywhere"));
            }
            if n == 0 || split.rows.iter().flatten().any(|&rows| rows == 0) {
                return Err(format!("the split n = {n} gives a head no rows"));
            }
            if !split.lean.iter().flatten().all(|lean| (0.0..=1.0).contains(lean)) {
                return Err(format!("the split n = {n} has a lean that is not from 0 to 1"));
            }
        }
        if !table.split.is_sorted_by(|a, b| a.n < b.n) {
            return Err("the splits are not in ascending order of n".into());
        }
        Ok(table)
    }

    /// Whether it is this model's.
    fn fits(&self, model: &ModelId) -> bool {
        let rows = &self.split[0].rows;
        self.fingerprint == model.fingerprint && rows.len() == model.layers && rows[0].len() == model.heads
    }

    /// The split for a mean of `n` rows, by layer: between two splits each head lies in between, beyond the last one
    /// its rows grow or shrink in proportion.
    pub fn at(&self, n: usize) -> Vec<LayerSplit> {
        let above = self.split.partition_point(|split| split.n < n).min(self.split.len() - 1);
        let below = if self.split[above].n <= n { above } else { above.saturating_sub(1) };
        let (low, high) = (&self.split[below], &self.split[above]);
        let part = if low.n == high.n { 0.0 } else { (n - low.n) as f64 / (high.n - low.n) as f64 };
        let beyond = if low.n == high.n { n as f64 / low.n as f64 } else { 1.0 };
        let between = |low: f64, high: f64| low + part * (high - low);
        let rows = |low: &u32, high: &u32| {
            (between(f64::from(*low), f64::from(*high)) * beyond).round().clamp(1.0, f64::from(u32::MAX)) as u32
        };
        let lean = |low: &f32, high: &f32| between(f64::from(*low), f64::from(*high)) as f32;
        (0..low.rows.len())
            .map(|layer| LayerSplit {
                rows: low.rows[layer].iter().zip(&high.rows[layer]).map(|(low, high)| rows(low, high)).collect(),
                lean: low.lean[layer].iter().zip(&high.lean[layer]).map(|(low, high)| lean(low, high)).collect(),
            })
            .collect()
    }
}

impl fmt::Display for Table {
    /// As its file is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model, fingerprint) = (files::toml_string(&self.model), files::toml_string(&self.fingerprint));
        writeln!(f, "model = {model}\nfingerprint = {fingerprint}")?;
        for split in &self.split {
            writeln!(f, "\n[[split]]\nn = {}\nrows = [", split.n)?;
            split.rows.iter().try_for_each(|rows| writeln!(f, "    {rows:?},"))?;
            writeln!(f, "]\nlean = [")?;
            split.lean.iter().try_for_each(|lean| writeln!(f, "    {lean:?},"))?;
            writeln!(f, "]")?;
        }
        Ok(())
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for Profile {}

impl Hash for Profile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Profile").field(&self.0.name).finish()
    }
}

/// The guarded value is consistent at every moment, so it can be used also where a holder of the lock panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn table() -> Table {
        let split = |n, rows: [[u32; 2]; 2], lean: f32| Split {
            n,
            rows: rows.map(Vec::from).to_vec(),
            lean: vec![vec![lean, 0.5]; 2],
        };
        Table {
            model: "tiny \"quoted\"".into(),
            fingerprint: "abc".into(),
            split: vec![split(4, [[1, 7], [4, 4]], 0.25), split(8, [[1, 11], [10, 10]], 0.75)],
        }
    }

    fn model() -> ModelId {
        ModelId { fingerprint: "abc".into(), layers: 2, heads: 2 }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Table::parse(&table().to_string()).unwrap(), table());
        assert_eq!(Table::parse(&format!("# made by\n{}", table())).unwrap(), table());
        // A model's name can hold anything, and is one line of what a terminal may be shown.
        let odd = Table { model: "a\x1b[2J\u{9b}\u{7f}\u{202e}\r\nkcache: \\ \"".into(), ..table() };
        let text = odd.to_string();
        assert_eq!(Table::parse(&text).unwrap(), odd);
        assert_eq!(text.lines().count(), table().to_string().lines().count());
        assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text}");
    }

    #[test]
    fn between_two_splits_heads_lie_in_between_and_beyond_in_proportion() {
        let rows = |n| table().at(n).into_iter().map(|layer| layer.rows).collect::<Vec<_>>();
        assert_eq!(rows(4), [[1, 7], [4, 4]]);
        assert_eq!(rows(8), [[1, 11], [10, 10]]);
        assert_eq!(rows(6), [[1, 9], [7, 7]]);
        assert_eq!(rows(16), [[2, 22], [20, 20]]);
        assert_eq!(rows(2), [[1, 4], [2, 2]]);
        assert_eq!(rows(1), [[1, 2], [1, 1]], "every head reads a row");
        assert_eq!(table().at(6)[1].lean, [0.5, 0.5]);
        assert_eq!(table().at(100)[0].lean, [0.75, 0.5]);
    }

    #[test]
    fn a_file_is_read_once_and_for_its_model_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let profile = Profile::named(path.to_str().unwrap());
        let error = profile.load(&model()).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("kcache tune"), "{error}");
        assert_eq!(profile.layer(4, 0), None, "nothing was loaded");
        fs::write(&path, table().to_string()).unwrap();
        profile.load(&model()).unwrap();
        assert_eq!(profile.layer(6, 1).unwrap().rows, [7, 7]);
        assert_eq!(profile.layer(6, 2), None);
        for other in [
            ModelId { fingerprint: "abd".into(), ..model() },
            ModelId { layers: 3, ..model() },
            ModelId { heads: 4, ..model() },
        ] {
            let error = profile.load(&other).unwrap_err().to_string();
            assert!(error.contains("another model (tiny") && !error.contains('\n'), "{error}");
            assert_eq!(Profile::built_in(&other), None);
        }
        assert_eq!(profile.model().unwrap(), "tiny \"quoted\"");
        let error = Profile::named("/dev/zero").model().unwrap_err().to_string();
        assert!(error.contains("more than 16 MiB"), "{error}");
        assert_eq!(profile, Profile::named(path.to_str().unwrap()));
        assert_ne!(profile, Profile::named("default"));
    }

    #[test]
    fn mistakes_are_named_in_one_line() {
        let text = table().to_string();
        for (broken, word) in [
            (String::new(), "missing field"),
            (text.replace("lean = [", "leen = ["), "leen"),
            (text.replacen("    [1, 7],\n", "", 1), "n = 4 has not the same layers"),
            (text.replacen("[1, 7]", "[1]", 1), "n = 4 has not the same layers"),
            (text.replacen("[1, 7]", "[0, 7]", 1), "no rows"),
            (text.replacen("[1, 7]", "[-1, 7]", 1), "line 7"),
            (text.replace("n = 8", "n = 3"), "ascending"),
            (text.replacen("[0.75, ", "[1.5, ", 1), "not from 0 to 1"),
            ("model = 'a'\nfingerprint = 'b'\nsplit = []\n".to_owned(), "no split"),
        ] {
            let why = Table::parse(&broken).unwrap_err();
            assert!(why.contains(word) && !why.contains('\n'), "{word}: {why}");
        }
    }
}
