//! Stop sequences: texts before which an answer ends. They are looked for in the text, not in the tokens, because a model
//! may write the same text with other tokens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most stop sequences of an answer.
pub const MOST: usize = 16;
/// The longest stop sequence, in bytes.
pub const LONGEST: usize = 256;

/// The texts before which an answer ends; none by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct StopSequences(Arc<[String]>);

/// Why stop sequences are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StopError {
    /// It would end every answer before its first token.
    #[error("a stop sequence needs at least one character")]
    Empty,
    /// One is too long.
    #[error("a stop sequence has {0} bytes; it may have {LONGEST}")]
    Long(usize),
    /// There are too many.
    #[error("there are {0} stop sequences; there may be {MOST}")]
    Many(usize),
}

impl TryFrom<Vec<String>> for StopSequences {
    type Error = StopError;

    fn try_from(texts: Vec<String>) -> Result<Self, StopError> {
        if texts.len() > MOST {
            return Err(StopError::Many(texts.len()));
        }
        for text in &texts {
            match text.len() {
                0 => return Err(StopError::Empty),
                1..=LONGEST => {}
                bytes => return Err(StopError::Long(bytes)),
            }
        }
        Ok(Self(texts.into()))
    }
}

impl From<StopSequences> for Vec<String> {
    fn from(stops: StopSequences) -> Self {
        stops.0.to_vec()
    }
}

impl StopSequences {
    /// The texts, in the order in which they were given.
    pub fn texts(&self) -> &[String] {
        &self.0
    }

    /// Looks through `text`, in which none begins before `from`. The text is certain up to where one may have begun.
    pub(crate) fn look(&self, text: &str, from: usize) -> Found {
        let rest = &text[from..];
        // The one that is complete first, wherever tokens happen to end; of several at once the longest.
        let complete = self.0.iter().filter_map(|stop| rest.find(stop.as_str()).map(|at| (at + stop.len(), at)));
        if let Some((_, at)) = complete.min() {
            return Found::Stop(from + at);
        }
        let may_begin = |at: usize| self.0.iter().any(|stop| stop.starts_with(&rest[at..]));
        let begins = rest.char_indices().map(|(at, _)| at).find(|&at| may_begin(at));
        Found::Certain(begins.map_or(text.len(), |at| from + at))
    }
}

/// What was found in the text of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A stop sequence begins here: the answer ends before it.
    Stop(usize),
    /// None so far, and none that begins before here will come.
    Certain(usize),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(texts: &[&str]) -> StopSequences {
        texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>().try_into().unwrap()
    }

    /// The text that is given out of `parts`, and whether it was stopped.
    fn given(stops: &StopSequences, parts: &[&str]) -> (String, bool) {
        let (mut text, mut certain, mut given) = (String::new(), 0, String::new());
        for part in parts {
            text.push_str(part);
            match stops.look(&text, certain) {
                Found::Stop(at) => {
                    assert!(at >= certain, "nothing that was given out is taken back");
                    given.push_str(&text[certain..at]);
                    return (given, true);
                }
                Found::Certain(now) => {
                    given.push_str(&text[certain..now]);
                    certain = now;
                }
            }
        }
        given.push_str(&text[certain..]);
        (given, false)
    }

    #[test]
    fn a_stop_that_spans_parts_is_never_seen_and_what_only_begins_like_one_is() {
        let end = stops(&["END"]);
        assert_eq!(given(&end, &["a", " E", "N", "D b"]), ("a ".into(), true));
        assert_eq!(given(&end, &["a E", "EN", "E", "ND"]), ("a EEN".into(), true));
        assert_eq!(given(&end, &["a EN"]), ("a EN".into(), false));
        assert_eq!(end.look("aEN", 0), Found::Certain(1));
        // The one that is complete first, also where both come at once.
        let two = stops(&["abcd", "bc"]);
        assert_eq!(given(&two, &["xabcd"]), given(&two, &["x", "a", "b", "c", "d"]));
        assert_eq!(given(&stops(&[]), &["a", "b"]), ("ab".into(), false));
    }

    proptest! {
        #[test]
        fn where_parts_end_changes_nothing(
            text in "[abé]{0,24}", texts in prop::collection::vec("[abé]{1,4}", 0..4), cuts in prop::collection::vec(1usize..5, 0..24)
        ) {
            let stops = stops(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let single: Vec<&str> = chars.iter().map(String::as_str).collect();
            let mut parts = Vec::new();
            let mut rest = &chars[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (part, after) = rest.split_at(cut.min(rest.len()));
                parts.push(part.concat());
                rest = after;
            }
            let (answer, stopped) = given(&stops, &single);
            prop_assert_eq!(&given(&stops, &parts.iter().map(String::as_str).collect::<Vec<_>>()), &(answer.clone(), stopped));
            prop_assert!(text.starts_with(&answer) && stops.texts().iter().all(|stop| !answer.contains(stop.as_str())));
            prop_assert_eq!(stopped, stops.texts().iter().any(|stop| text.contains(stop.as_str())));
        }
    }

    #[test]
    fn what_can_be_no_stop_sequence_is_refused() {
        let refused = |texts: Vec<String>| StopSequences::try_from(texts).unwrap_err();
        assert_eq!(refused(vec![String::new()]), StopError::Empty);
        assert_eq!(refused(vec!["x".repeat(257)]), StopError::Long(257));
        assert_eq!(refused(vec!["x".into(); 17]), StopError::Many(17));
        assert!(StopSequences::try_from(vec!["x".repeat(256); 16]).is_ok());
        let json = serde_json::to_string(&stops(&["\n\n"])).unwrap();
        assert_eq!(json, r#"["\n\n"]"#);
        assert!(serde_json::from_str::<StopSequences>(r#"[""]"#).unwrap_err().to_string().contains("at least one"));
    }
}
