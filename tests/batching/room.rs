//! Who waits and who is set back where pages run out, and that nothing of it shows in the text.

use super::*;

#[test]
fn answers_wait_for_room_and_are_set_back_for_older_ones_without_a_trace_in_the_text() {
    let model = model(512);
    for policy in ["kv", "kv-q8", POLICY, "kcache:n=16,dense=0,k=q8"] {
        let prompts: Vec<_> = (0..4).map(|seed| (tokens(seed, 70), 150)).collect();
        let expected = alone(&model, policy, &prompts);
        // Two start with two blocks each; both grow to four, and six is what there is.
        let sizes = Sizes::of(&model, policy);
        let budget = sizes.workspace + 3 * sizes.sums + 6 * sizes.block;
        let (engine, events) = start(&model, options(policy, Some(budget)));
        for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
            open(&engine, session as u32);
            feed(&engine, session as u32, prompt, turn(*max_tokens));
        }
        let read = until_finished(&events, 4);
        let (rest, queue) = stop(engine, &events);
        assert_eq!(errors(&read), Vec::<String>::new(), "{policy}");
        let found = answers(&read);
        for (session, expected) in expected.iter().enumerate() {
            assert_eq!(&found[&(session as u32)], expected, "{policy}, session {session}");
        }
        let states = states(&read);
        assert!(states.iter().any(|(_, state)| *state == Scheduling::Preempted), "{policy}: {states:?}");
        assert!(!states.contains(&(0, Scheduling::Preempted)), "{policy}: the oldest is never set back");
        // Whoever is set back goes on before anybody starts who waits.
        let mut preempted = BTreeSet::new();
        let mut started = BTreeSet::new();
        for (session, state) in states {
            match state {
                Scheduling::Preempted => drop(preempted.insert(session)),
                Scheduling::Running if started.insert(session) => {
                    assert!(preempted.is_empty(), "{policy}: {session} starts while {preempted:?} are set back");
                }
                Scheduling::Running => drop(preempted.remove(&session)),
                Scheduling::Waiting | Scheduling::Freed => {}
            }
        }
        assert_eq!((queue.freed, queue.recomputed_tokens, queue.refused), (0, 0, 0), "{policy}");
        assert!(queue.preemptions > 0 && queue.device_peak_bytes <= budget, "{policy}: {queue:?}");
        for event in read.iter().chain(&rest) {
            if let EventKind::Ledger(ledger) = &event.kind {
                assert!(ledger.device.cache() <= budget, "{policy}");
            }
        }
    }
}

#[test]
fn where_the_host_is_full_too_tokens_are_computed_again() {
    let model = model(512);
    let sizes = Sizes::of(&model, "kv");
    let mut options = options("kv", Some(sizes.budget(1, 6)));
    options.lanes[0].host_budget = Some(sizes.block);
    let (engine, events) = start(&model, options);
    for session in 0..3 {
        open(&engine, session);
        feed(&engine, session, &tokens(session, 70), turn(150));
    }
    let read = until_finished(&events, 3);
    let (_, queue) = stop(engine, &events);
    assert!(answers(&read).values().all(|answer| answer.len() == 150));
    assert!(queue.freed > 0 && queue.recomputed_tokens > 0, "{queue:?}");
    assert!(states(&read).iter().any(|(_, state)| *state == Scheduling::Freed));
    // The first is never set back, so its text is what it is alone.
    assert_eq!(answers(&read)[&0], alone(&model, "kv", &[(tokens(0, 70), 150)])[0]);
}

#[test]
fn a_budget_lowered_below_what_is_held_sets_answers_back_until_it_fits() {
    // Answers so long that they are under way when the budgets change, however late this thread gets to say so.
    let model = model(4096);
    let sizes = Sizes::of(&model, "kv");
    let prompts: Vec<_> = (0..4).map(|seed| (tokens(seed, 100), 600)).collect();
    let expected = alone(&model, "kv", &prompts);
    let (engine, events) = start(&model, options("kv", None));
    for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
        open(&engine, session as u32);
        feed(&engine, session as u32, prompt, turn(*max_tokens));
    }
    let mut read = Vec::new();
    while answers(&read).len() < 4 {
        read.push(events.recv_timeout(Duration::from_secs(60)).expect("tokens come"));
    }
    let bytes = Some(sizes.budget(1, 11));
    engine.ops().send(Request::SetBudget { lane: Lane::KCache, bytes }).unwrap();
    read.extend(until_finished(&events, 4));
    let lowered = read.iter().position(|event| matches!(event.kind, EventKind::Knob { .. })).expect("a knob is told");
    assert!(states(&read[lowered..]).iter().filter(|(_, state)| *state == Scheduling::Preempted).count() >= 3);
    let found = answers(&read);
    for (session, expected) in expected.iter().enumerate() {
        assert_eq!(&found[&(session as u32)], expected, "session {session}");
    }
    // So low that nothing fits: what runs ends, and says why.
    engine.ops().send(Request::SetBudget { lane: Lane::KCache, bytes: None }).unwrap();
    feed(&engine, 0, &tokens(9, 10), turn(3_000));
    while !matches!(events.recv_timeout(Duration::from_secs(60)).expect("tokens come").kind, EventKind::Token(_)) {}
    engine.ops().send(Request::SetBudget { lane: Lane::KCache, bytes: Some(sizes.workspace) }).unwrap();
    let read = until_finished(&events, 1);
    assert_eq!(errors(&read).len(), 1);
    stop(engine, &events);
}
