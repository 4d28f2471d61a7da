//! Sequences that begin with the same tokens, and pages that stay for the next turn.

use super::*;

#[test]
fn shared_prefixes_give_the_same_tokens_and_are_booked_once() {
    let model = model(512);
    let document = tokens(7, 200);
    let prompts: Vec<_> = (0..6)
        .map(|seed| {
            let mut prompt = document.clone();
            prompt.extend(tokens(100 + seed, 20));
            (prompt, 24)
        })
        .collect();
    for policy in ["kv", "kv-q8", POLICY, "kcache:n=16,dense=0,k=q8"] {
        let expected = alone(&model, policy, &prompts);
        let (engine, events) = start(&model, options(policy, None));
        for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
            open(&engine, session as u32);
            feed(&engine, session as u32, prompt, turn(*max_tokens));
        }
        let read = until_finished(&events, 6);
        let found = answers(&read);
        for (session, expected) in expected.iter().enumerate() {
            assert_eq!(&found[&(session as u32)], expected, "{policy}, session {session}");
        }
        let at_rest = loop {
            let event = events.recv_timeout(Duration::from_secs(60)).expect("an engine at rest tells its ledger");
            if let EventKind::Ledger(ledger) = event.kind {
                break ledger;
            }
        };
        // Three pages of the document once, and one more of each session.
        let [k, _] = policy.parse::<Policy>().unwrap().formats();
        let shape = model.cache_shape();
        assert_eq!(at_rest.device.k, (3 + 6) * shape.layers as u64 * shape.page_bytes(k), "{policy}");
        assert_eq!(at_rest.sequences, 6);
        let (_, queue) = stop(engine, &events);
        assert_eq!(queue.prefix_hit_tokens, 5 * 192, "{policy}");
    }
}

#[test]
fn sharing_fits_more_sessions_under_a_budget_and_survives_moves_between_the_tiers() {
    let model = model(512);
    let document = tokens(7, 200);
    let prompts: Vec<_> = (0..5)
        .map(|seed| {
            let mut prompt = document.clone();
            prompt.extend(tokens(100 + seed, 20));
            (prompt, 100)
        })
        .collect();
    let expected = alone(&model, POLICY, &prompts);
    // Three blocks of the document and one or two of each session: not all of them at once.
    let sizes = Sizes::of(&model, POLICY);
    let budget = sizes.workspace + 5 * sizes.sums + 8 * sizes.block;
    for host_budget in [None, Some(9 * sizes.host + 6 * sizes.block)] {
        let mut options = options(POLICY, Some(budget));
        options.lanes[0].host_budget = host_budget;
        let (engine, events) = start(&model, options);
        for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
            open(&engine, session as u32);
            feed(&engine, session as u32, prompt, turn(*max_tokens));
        }
        let read = until_finished(&events, 5);
        let freed: BTreeSet<u32> = states(&read)
            .into_iter()
            .filter_map(|(session, state)| (state == Scheduling::Freed).then_some(session))
            .collect();
        let found = answers(&read);
        for (session, expected) in expected.iter().enumerate() {
            if !freed.contains(&(session as u32)) {
                assert_eq!(&found[&(session as u32)], expected, "session {session}");
            }
        }
        let (_, queue) = stop(engine, &events);
        assert!(queue.prefix_hit_tokens >= 4 * 192 && queue.preemptions > 0, "{queue:?}");
        assert!(queue.device_peak_bytes <= budget);
        assert_eq!(freed.is_empty(), queue.recomputed_tokens == 0);
    }
}

#[test]
fn an_idle_session_leaves_its_pages_until_they_are_needed_and_goes_on_with_them() {
    let model = model(512);
    let sizes = Sizes::of(&model, POLICY);
    let follow_up = |budget: Option<u64>| {
        let (engine, events) = start(&model, options(POLICY, budget));
        open(&engine, 1);
        open(&engine, 2);
        feed(&engine, 1, &tokens(1, 150), turn(20));
        until_finished(&events, 1);
        feed(&engine, 2, &tokens(2, 150), turn(20));
        until_finished(&events, 1);
        let moved = loop {
            let event = events.recv_timeout(Duration::from_secs(60)).expect("an engine at rest tells its ledger");
            if let EventKind::Ledger(ledger) = event.kind {
                break ledger.host.k > 0;
            }
        };
        feed(&engine, 1, &tokens(3, 10), turn(20));
        let read = until_finished(&events, 1);
        let reused = read.iter().find_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some(finished.usage.reused_tokens),
            _ => None,
        });
        stop(engine, &events);
        (answers(&read), reused, moved)
    };
    let (expected, reused, moved) = follow_up(None);
    assert_eq!((reused, moved), (Some(169), false));
    let (found, reused, moved) = follow_up(Some(sizes.budget(1, 4)));
    assert_eq!((found, reused), (expected, Some(169)));
    assert!(moved, "the first session's pages go to the host for the second");
}
