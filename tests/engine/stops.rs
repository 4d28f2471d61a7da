//! Stop sequences: where an answer ends, what is told of it, and how the conversation goes on.

use super::*;
use kcache::engine::StopSequences;

/// What a lane told of its answer.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    ids: Vec<u32>,
    text: String,
    end: Option<(FinishReason, usize)>,
    reused: usize,
}

fn told(events: &[Event], lane: Lane) -> Told {
    let mut told = Told::default();
    for event in events {
        match &event.kind {
            EventKind::Token(token) if token.lane == lane => {
                assert!(told.end.is_none(), "nothing is told after the end");
                assert_eq!(token.index, told.ids.len(), "no token is lost");
                told.ids.push(token.token_id);
                told.text.push_str(&token.text);
            }
            EventKind::Finished(finished) if finished.lane == lane => {
                told.end = Some((finished.reason, finished.usage.completion_tokens));
                told.reused = finished.usage.reused_tokens;
            }
            _ => {}
        }
    }
    told
}

fn real() -> Arc<LanguageModel> {
    let path = source::ensure_default(&mut |_| {}, &Default::default()).expect("the default model can be fetched");
    Arc::new(LanguageModel::open(&path, Some(1024)).unwrap())
}

fn stops(texts: &[&str]) -> StopSequences {
    texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>().try_into().unwrap()
}

const QUESTION: &str = "Tell me a short story about a lighthouse.";

/// Asks in a session whose lanes have `sides` behind them; what each lane told, message by message.
fn conversation(
    model: &Arc<LanguageModel>,
    compare: bool,
    sides: &[(Lane, Vec<ChatMessage>)],
    asked: &[(&str, StopSequences)],
) -> Vec<[Told; 2]> {
    let lanes = vec![lane(Lane::KCache, "kcache:n=16", None), lane(Lane::Kv, "kv", None)];
    let (engine, events) = start(model, lanes);
    let ops = engine.ops();
    ops.send(open(1)).unwrap();
    if compare {
        ops.send(Request::Compare { session: SessionId(1), on: true }).unwrap();
    }
    for (lane, messages) in sides {
        ops.send(Request::RestoreHistory { session: SessionId(1), lane: *lane, messages: messages.clone() }).unwrap();
    }
    let mut answers = Vec::new();
    for (text, stop) in asked {
        let turn =
            GenerationOptions { max_tokens: 32, ignore_eos: true, stop: stop.clone(), ..GenerationOptions::default() };
        ops.send(Request::SubmitMessage {
            session: SessionId(1),
            document: None,
            text: (*text).to_owned(),
            options: turn,
        })
        .unwrap();
        let read = until_finished(&events, 2);
        answers.push(Lane::ALL.map(|lane| told(&read, lane)));
    }
    stop(engine, &events);
    answers
}

/// A text that several tokens of the answer hold, which begins and ends inside of a token.
fn across_tokens(model: &LanguageModel, answer: &Told) -> String {
    let pieces: Vec<String> = answer.ids.iter().map(|&id| model.tokenizer.decode(&[id])).collect();
    assert_eq!(pieces.concat(), answer.text, "every token is whole characters");
    let long = |at: &usize| [*at, at + 2].iter().all(|&at| pieces[at].is_ascii() && pieces[at].len() > 3);
    let at = (pieces.len() / 3..pieces.len() - 2).find(long).expect("there are longer words");
    format!("{}{}{}", &pieces[at][2..], pieces[at + 1], &pieces[at + 2][..2])
}

#[test]
fn an_answer_ends_before_a_stop_and_nothing_of_it_is_told() {
    let model = real();
    let free = &conversation(&model, false, &[], &[(QUESTION, StopSequences::default())])[0];
    let text = across_tokens(&model, &free[1]);
    for compare in [false, true] {
        let stopped = &conversation(&model, compare, &[], &[(QUESTION, stops(&["never said", &text]))])[0];
        for (at, lane) in Lane::ALL.into_iter().enumerate() {
            let whole = if compare { &free[1] } else { &free[at] };
            let told = &stopped[at];
            assert!(whole.ids.starts_with(&told.ids), "{lane}: the same tokens");
            match whole.text.find(&text) {
                Some(end) => {
                    assert_eq!(told.text, whole.text[..end], "{lane}");
                    assert_eq!(told.end, Some((FinishReason::Stop, told.ids.len())), "{lane}");
                    assert!(told.ids.len() < whole.ids.len(), "{lane}: {}", told.text);
                }
                None => assert_eq!(told, whole, "{lane}"),
            }
        }
    }
    // What only begins like one is told, also at the very end of an answer.
    let nearly: Vec<String> = free.iter().map(|told| format!("{}~", &told.text[told.text.len() - 6..])).collect();
    let near_miss = stops(&[&nearly[0], &nearly[1], &format!("{text}~")]);
    assert_eq!(&conversation(&model, false, &[], &[(QUESTION, near_miss)])[0], free);
}

#[test]
fn after_a_stop_a_conversation_goes_on_as_a_fresh_one_does() {
    let model = real();
    let free = &conversation(&model, false, &[], &[(QUESTION, StopSequences::default())])[0];
    let text = across_tokens(&model, &free[1]);
    let next = ("Who lives there?", StopSequences::default());
    for compare in [false, true] {
        let went_on = conversation(&model, compare, &[], &[(QUESTION, stops(&[&text])), next.clone()]);
        assert!(went_on[0].iter().any(|told| told.end.is_some_and(|(reason, _)| reason == FinishReason::Stop)));
        let sides: Vec<_> = Lane::ALL
            .into_iter()
            .zip(&went_on[0])
            .map(|(lane, told)| {
                (lane, vec![ChatMessage::new(Role::User, QUESTION), ChatMessage::new(Role::Assistant, &*told.text)])
            })
            .collect();
        let fresh = conversation(&model, compare, &sides, std::slice::from_ref(&next));
        for (at, lane) in Lane::ALL.into_iter().enumerate() {
            let stopped = went_on[0][at].end.is_some_and(|(reason, _)| reason == FinishReason::Stop);
            if stopped {
                assert_eq!((&went_on[1][at].ids, went_on[1][at].reused), (&fresh[0][at].ids, 0), "{lane}");
            }
        }
    }
}

#[test]
fn a_stop_of_one_token_costs_no_pages() {
    let model = real();
    let free = &conversation(&model, false, &[], &[(QUESTION, StopSequences::default())])[0];
    let kv = &free[1];
    // A token that is said once, as it is.
    let mut begins = 0;
    let (at, text) = (0..kv.ids.len())
        .find_map(|at| {
            let piece = model.tokenizer.decode(&kv.ids[at..=at]);
            let first = kv.text.find(&piece) == Some(begins) && at > 6;
            begins += piece.len();
            first.then_some((at, piece))
        })
        .expect("a word that is said once");
    let next = ("Who lives there?", StopSequences::default());
    let went_on = conversation(&model, false, &[], &[(QUESTION, stops(&[&text])), next]);
    let told = &went_on[0][1];
    assert_eq!((told.ids.len(), told.end), (at + 1, Some((FinishReason::Stop, at + 1))));
    assert_eq!(told.text, kv.text[..kv.text.find(&text).unwrap()]);
    // The prompt and every token of the answer that was said.
    let prompt = model.chat.prompt(&model.tokenizer, &[ChatMessage::new(Role::User, QUESTION)]).unwrap().len();
    assert_eq!(went_on[1][1].reused, prompt + at);
}
