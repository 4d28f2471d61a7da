//! The queue: what is refused, what it holds, and who goes first.

use super::*;

#[test]
fn what_can_never_fit_is_refused_with_the_number_that_would() {
    let model = model(512);
    let sizes = Sizes::of(&model, POLICY);
    let (engine, events) = start(&model, options(POLICY, Some(sizes.budget(1, 3))));
    open(&engine, 1);
    feed(&engine, 1, &tokens(1, 3 * PAGE_TOKENS), turn(5));
    let read = until_finished(&events, 1);
    let errors = errors(&read);
    assert!(errors.iter().any(|error| error.contains("192 tokens") && error.contains("fits 191")), "{errors:?}");
    feed(&engine, 1, &tokens(1, 3 * PAGE_TOKENS - 1), turn(5));
    let read = until_finished(&events, 1);
    let ends: Vec<_> = read
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some((finished.reason, finished.usage.completion_tokens)),
            _ => None,
        })
        .collect();
    // One token comes of the prompt, and there is a place for it; for the next there is none.
    assert_eq!(ends, [(FinishReason::Budget, 2)]);
    let (_, queue) = stop(engine, &events);
    assert_eq!(queue.refused, 1);
}

#[test]
fn a_full_queue_pushes_back_and_those_in_it_can_be_cancelled() {
    let model = model(512);
    let sizes = Sizes::of(&model, "kv");
    let options = EngineOptions { queue: 2, ..options("kv", Some(sizes.budget(1, 7))) };
    let (engine, events) = start(&model, options);
    for session in 0..4 {
        open(&engine, session);
        feed(&engine, session, &tokens(session, 300), turn(140));
    }
    // The first runs, two wait, the fourth is pushed back; then one of the two is taken back.
    engine.ops().send(Request::Stop { session: SessionId(1), lane: None }).unwrap();
    engine.ops().send(Request::Close { session: SessionId(2) }).unwrap();
    let mut read = until_finished(&events, 3);
    let messages = errors(&read);
    assert!(messages.iter().all(|error| error.contains("queue is full, 2 answers wait")), "{messages:?}");
    assert_eq!(messages.len(), 1);
    let reasons: BTreeMap<u32, FinishReason> = read
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some((finished.session.0, finished.reason)),
            _ => None,
        })
        .collect();
    let cancelled = FinishReason::Cancelled;
    assert_eq!(reasons, BTreeMap::from([(0, FinishReason::Length), (1, cancelled), (2, cancelled)]));
    assert_eq!(answers(&read).keys().copied().collect::<Vec<_>>(), [0], "the others never started");
    feed(&engine, 3, &tokens(3, 300), turn(3));
    read = until_finished(&events, 1);
    assert_eq!(answers(&read)[&3].len(), 3);
    stop(engine, &events);
}

#[test]
fn what_was_typed_starts_before_what_the_program_asked() {
    let model = model(512);
    let sizes = Sizes::of(&model, "kv");
    let (engine, events) = start(&model, options("kv", Some(sizes.budget(1, 3))));
    let background = GenerationOptions { priority: Priority::Background, ..turn(20) };
    for (session, turn) in [(0, background.clone()), (1, background), (2, turn(20))] {
        open(&engine, session);
        feed(&engine, session, &tokens(session, 120), turn);
    }
    let read = until_finished(&events, 3);
    let running = states(&read).into_iter().filter(|(_, state)| *state == Scheduling::Running);
    let mut order: Vec<u32> = running.map(|(session, _)| session).collect();
    order.dedup();
    let place = |session| order.iter().position(|each| *each == session).unwrap();
    assert!(place(2) < place(1), "{order:?}");
    stop(engine, &events);
}

/// What is typed goes before what the program asked; but where it has to wait for the pages of a prompt that is being
/// computed, that prompt must go on, or both wait for ever.
#[test]
fn a_prompt_that_holds_the_room_goes_on_for_what_was_typed() {
    let model = model(2048);
    let sizes = Sizes::of(&model, POLICY);
    let (engine, events) = start(&model, options(POLICY, Some(sizes.budget(1, 28))));
    open(&engine, 1);
    open(&engine, 2);
    feed(&engine, 1, &tokens(1, 24 * 64), GenerationOptions { priority: Priority::Background, ..turn(4) });
    let runs = |event: Event| {
        let EventKind::Scheduled { session, state, .. } = event.kind else { return false };
        session == SessionId(1) && state == Scheduling::Running
    };
    while !runs(events.recv().expect("the first answer starts")) {}
    feed(&engine, 2, &tokens(2, 20 * 64), turn(4));
    let read = until_finished(&events, 2);
    let tokens = read.iter().filter(|event| matches!(event.kind, EventKind::Token(_))).count();
    assert_eq!(tokens, 8);
    drop(engine);
}
