//! Everything at once: many requests, stops, knobs and budgets.

use super::*;

#[test]
fn two_hundred_requests_with_cancels_knobs_and_budgets_all_end_and_say_what_they_say_alone() {
    let model = model(512);
    for (seed, policy) in [(1, "kv"), (2, POLICY)] {
        let mut random = Random(seed);
        let sizes = Sizes::of(&model, policy);
        let mut options = options(policy, Some(sizes.budget(3, 5)));
        options.lanes[0].host_budget = Some(20 * (sizes.block + sizes.host));
        let (engine, events) = start(&model, options);
        let mut prompts = Vec::new();
        let mut cancelled = BTreeSet::new();
        // Sessions that may have run while a knob differed from the one of the comparison.
        let mut turned = BTreeSet::new();
        let mut open_ones: BTreeSet<u32> = BTreeSet::new();
        let mut read = Vec::new();
        let ended = |read: &[Event]| -> BTreeSet<u32> {
            let ended = |event: &Event| match &event.kind {
                EventKind::Finished(finished) => Some(finished.session.0),
                _ => None,
            };
            read.iter().filter_map(ended).collect()
        };
        let mut knob_is_turned = false;
        for session in 0..200 {
            let shared = random.below(3) == 0;
            let length = 1 + random.below(260) as usize;
            let mut prompt = if shared { tokens(1000, 130) } else { Vec::new() };
            prompt.extend(tokens(session, length));
            let max_tokens = 1 + random.below(40) as usize;
            open(&engine, session);
            feed(&engine, session, &prompt, turn(max_tokens));
            prompts.push((prompt, max_tokens));
            open_ones.insert(session);
            if knob_is_turned {
                turned.insert(session);
            }
            match random.below(10) {
                0 => {
                    let session = random.below(session + 1);
                    engine.ops().send(Request::Stop { session: SessionId(session), lane: None }).unwrap();
                    cancelled.insert(session);
                }
                1 => {
                    let session = random.below(session + 1);
                    if open_ones.remove(&session) {
                        engine.ops().send(Request::Close { session: SessionId(session) }).unwrap();
                        cancelled.insert(session);
                    }
                }
                2 => {
                    let blocks = 3 + u64::from(random.below(20));
                    let bytes = (blocks < 20).then(|| sizes.budget(1, blocks));
                    engine.ops().send(Request::SetBudget { lane: Lane::KCache, bytes }).unwrap();
                }
                // Seldom turned, and soon turned back: enough has to be left to compare.
                choice @ (3 | 6 | 7 | 8) if policy != "kv" && (knob_is_turned || choice == 3 && session % 4 == 0) => {
                    knob_is_turned = !knob_is_turned;
                    let policy = if knob_is_turned { "kcache:n=3,dense=0,tail=none" } else { policy };
                    let policy = policy.parse().unwrap();
                    engine.ops().send(Request::SetPolicy { lane: Lane::KCache, policy }).unwrap();
                    // Whoever has not ended may be touched by it.
                    while let Some(event) = events.try_recv() {
                        read.push(event);
                    }
                    let ended = ended(&read);
                    turned.extend((0..=session).filter(|session| !ended.contains(session)));
                }
                4 => read.extend(events.recv_timeout(Duration::from_millis(5))),
                // Now and then the engine is let catch up, so that not everything waits.
                5 => {
                    let before = ended(&read).len();
                    while ended(&read).len() < (before + 8).min(open_ones.len().saturating_sub(4)) {
                        read.push(events.recv_timeout(Duration::from_secs(60)).expect("answers end"));
                    }
                }
                _ => {}
            }
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        while ended(&read).len() < 200 {
            let left = deadline.saturating_duration_since(Instant::now());
            read.push(events.recv_timeout(left).expect("all answers end"));
        }
        let (rest, queue) = stop(engine, &events);
        read.extend(rest);
        let reasons: BTreeMap<u32, FinishReason> = read
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Finished(finished) => Some((finished.session.0, finished.reason)),
                _ => None,
            })
            .collect();
        assert_eq!(reasons.len(), 200);
        let freed: BTreeSet<u32> = states(&read)
            .into_iter()
            .filter_map(|(session, state)| (state == Scheduling::Freed).then_some(session))
            .collect();
        let found = answers(&read);
        let mut compared = 0;
        let expected = alone(&model, policy, &prompts);
        for (session, expected) in (0..).zip(&expected) {
            let reason = reasons[&session];
            match reason {
                FinishReason::Length => {}
                FinishReason::Cancelled => assert!(cancelled.contains(&session), "{policy} {session}"),
                FinishReason::Budget => {}
                other => panic!("{policy}, session {session}: {other:?}"),
            }
            if turned.contains(&session) || freed.contains(&session) {
                continue;
            }
            let none = Vec::new();
            let found = found.get(&session).unwrap_or(&none);
            assert_eq!(found, &expected[..found.len()], "{policy}, session {session}, {reason:?}");
            if reason == FinishReason::Length {
                assert_eq!(found.len(), expected.len());
                compared += 1;
            }
        }
        assert!(compared > 60, "{policy}: {compared} of 200 could be compared");
        assert!(queue.preemptions > 0 && queue.prefix_hit_tokens > 0, "{policy}: {queue:?}");
        println!("{policy}: {compared} compared, {} computed again, {queue:?}", freed.len());
    }
}
