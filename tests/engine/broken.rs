//! Sessions whose tokens a model cannot compute: they end with the reason, and nobody else does.

use super::*;

/// A model whose embeddings of some tokens are too large to be squared.
fn model_without(tokens: &[u32]) -> Arc<LanguageModel> {
    let row = 1e25f32.to_le_bytes().repeat(64);
    let damage = |token: &u32| ("token_embd.weight".to_owned(), *token as usize * row.len(), row.clone());
    support::open(&Tiny { tied: false, damage: tokens.iter().map(damage).collect(), ..Tiny::default() })
}

fn feed(session: u32, tokens: &[u32], max_tokens: usize) -> Request {
    let turn = GenerationOptions { max_tokens, ignore_eos: true, ..GenerationOptions::default() };
    Request::SubmitTokens {
        session: SessionId(session),
        prefilled: None,
        tokens: tokens.to_vec(),
        options: turn,
        once: false,
    }
}

/// How each answer ended.
fn reasons(events: &[Event]) -> BTreeMap<(u32, Lane), FinishReason> {
    let reason = |event: &Event| match &event.kind {
        EventKind::Finished(finished) => Some(((finished.session.0, finished.lane), finished.reason)),
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}

#[test]
fn a_prompt_that_cannot_be_computed_fails_alone_and_is_taken_back() {
    let model = model_without(&[40]);
    let alone = {
        let (engine, events) = start(&model, both_lanes());
        engine.ops().send(open(2)).unwrap();
        engine.ops().send(feed(2, &[50, 51, 52], 30)).unwrap();
        let read = until_finished(&events, 2);
        stop(engine, &events);
        answers(&read)
    };
    for compare in [false, true] {
        let (engine, events) = start(&model, both_lanes());
        for session in [1, 2] {
            engine.ops().send(open(session)).unwrap();
            engine.ops().send(Request::Compare { session: SessionId(session), on: compare && session == 1 }).unwrap();
        }
        engine.ops().send(feed(2, &[50, 51, 52], 30)).unwrap();
        // Beyond a chunk, so that the first chunk is fine and the last one would bring an answer.
        let prompt: Vec<u32> = (60..95).chain([40]).chain(100..130).collect();
        engine.ops().send(feed(1, &prompt, 8)).unwrap();
        let read = until_finished(&events, 4);
        let found = reasons(&read);
        for lane in Lane::ALL {
            assert_eq!(found[&(1, lane)], FinishReason::Failed);
            assert_eq!(found[&(2, lane)], FinishReason::Length);
            assert_eq!(answers(&read)[&(SessionId(2), lane)].len(), 30);
            if lane == Lane::Kv && !compare {
                assert_eq!(answers(&read)[&(SessionId(2), lane)], alone[&(SessionId(2), lane)]);
            }
        }
        let said = errors(&read);
        assert!(said.len() == 2 && said.iter().all(|said| said.starts_with("the embedding of the model")), "{said:?}");
        // The turn is as if it had never been asked: another one works.
        engine.ops().send(feed(1, &[60, 61], 8)).unwrap();
        let read = until_finished(&events, 2);
        assert_eq!(Lane::ALL.map(|lane| reasons(&read)[&(1, lane)]), [FinishReason::Length; 2]);
        stop(engine, &events);
    }
}

#[test]
fn an_answer_ends_at_the_token_that_cannot_be_computed() {
    let prompt: Vec<u32> = (10..40).collect();
    let answer = |model: &Arc<LanguageModel>| {
        let (engine, events) = start(model, vec![lane(Lane::KCache, "kcache:n=16,dense=0", None)]);
        engine.ops().send(open(1)).unwrap();
        engine.ops().send(feed(1, &prompt, 12)).unwrap();
        let read = until_finished(&events, 1);
        stop(engine, &events);
        read
    };
    let whole = answers(&answer(&model_without(&[]))).into_values().next().unwrap();
    let seen = |at: usize| prompt.contains(&whole[at]) || whole[..at].contains(&whole[at]);
    let at = (1..11).find(|&at| !seen(at)).expect("an answer has a token that was not there before");
    let read = answer(&model_without(&[whole[at]]));
    assert_eq!(answers(&read).into_values().next().unwrap(), whole[..=at], "the token itself was chosen");
    assert_eq!(reasons(&read)[&(1, Lane::KCache)], FinishReason::Failed);
    assert!(errors(&read)[0].contains("the model file is damaged"), "{:?}", errors(&read));
}
