//! What a lane reserves, copies, shares, swaps out and promotes.

use super::*;
use crate::cache::Knobs;

const SHAPE: CacheShape = CacheShape { layers: 3, kv_heads: 2, head_dim: 64 };

fn lane(policy: &str) -> LaneCache {
    LaneCache::new(SHAPE, policy.parse().unwrap(), None, None)
}

/// A sequence of `tokens` whose values depend on nothing but where they are.
fn filled(lane: &mut LaneCache, tokens: usize) -> SequenceCache {
    let mut sequence = lane.open().unwrap();
    lane.grow(&mut sequence, tokens).unwrap();
    (0..SHAPE.layers).for_each(|layer| sequence.take_pages(layer, tokens));
    for position in 0..tokens {
        for layer in 0..SHAPE.layers {
            let row = |seed: f32| -> Vec<f32> {
                (0..2 * 64).map(|at| ((at + 131 * position + 17 * layer) as f32 * seed).sin()).collect()
            };
            sequence.write(layer, position, &row(0.37), &row(0.71));
        }
    }
    sequence.advance(tokens);
    sequence
}

#[test]
fn each_policy_holds_what_it_stores() {
    let kv = SHAPE.kv_bytes(100);
    for (policy, device, host) in [
        ("kv", kv, 0),
        ("kv-q8", kv * 34 / 64, 0),
        ("kcache:dense=0", kv / 2, kv / 2),
        ("kcache:dense=0,k=q8", kv / 2 * 34 / 64, kv / 2),
        ("kcache:dense=1,k=q8", kv / 2 * 34 / 64 + kv / 6, kv / 3),
    ] {
        let mut lane = lane(policy);
        let empty = lane.open().unwrap();
        assert_eq!(lane.growth(&empty, 100), (device, host), "{policy}");
        let sequence = filled(&mut lane, 100);
        let held = [lane.device().held(MemoryKind::K) + lane.device().held(MemoryKind::V), lane.host().used()];
        assert_eq!(held, [device, host], "{policy}");
        lane.check([&empty, &sequence].into_iter()).unwrap();
        lane.close(sequence);
        lane.close(empty);
        assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
    }
}

#[test]
fn a_copy_holds_the_same_rows_or_those_of_its_own_format() {
    let policies = ["kv", "kv-q8", "kcache:dense=1", "kcache:dense=0,k=q8"];
    for from in policies {
        for to in policies {
            let (mut from_lane, mut to_lane) = (lane(from), lane(to));
            let sequence = filled(&mut from_lane, 70);
            let copy = to_lane.fork(&sequence).unwrap();
            let written = filled(&mut to_lane, 70);
            to_lane.check([&copy, &written].into_iter()).unwrap();
            assert_eq!(copy.formats(), to_lane.formats());
            for layer in 0..SHAPE.layers {
                let [from_k, from_v] = sequence.formats();
                let [to_k, to_v] = copy.formats();
                for (pages, written, exact) in [
                    (copy.k(layer), written.k(layer), from_k == to_k),
                    (copy.v(layer), written.v(layer), from_v == to_v),
                ] {
                    for position in 0..70 {
                        let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
                        let (mut a, mut b) = ([0.0; 64], [0.0; 64]);
                        pages[page].read(1, slot, &mut a);
                        written[page].read(1, slot, &mut b);
                        let most = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        // A row rounded twice is a step of 1/127 away at most.
                        assert!(most <= if exact { 0.0 } else { 0.0082 }, "{from} to {to}: {most}");
                    }
                }
                if from_v == to_v {
                    assert_eq!(copy.v_sum(layer), written.v_sum(layer), "{from} to {to}");
                }
            }
        }
    }
}

#[test]
fn memory_for_pages_is_taken_once_and_before_rows_are_written() {
    let mut lane = lane("kcache:dense=1");
    let mut sequence = filled(&mut lane, 63);
    lane.grow(&mut sequence, 1_300).unwrap();
    assert_eq!((sequence.k(1).len(), sequence.capacity()), (1, 22 * 64), "reserved, and not taken yet");
    // Sixteen at a time, and never more than are reserved.
    for (tokens, pages) in [(1, 1), (2, 16), (2, 16), (961, 16), (962, 22), (1_300, 22)] {
        sequence.take_pages(1, tokens);
        assert_eq!([sequence.k(1).len(), sequence.v(1).len(), sequence.k(0).len()], [pages, pages, 1]);
    }
    lane.check([&sequence].into_iter()).unwrap();
    lane.trim(&mut sequence);
    assert_eq!((sequence.k(1).len(), sequence.v(1).len()), (1, 1));
    lane.close(sequence);
}

#[test]
#[should_panic(expected = "pages were taken before")]
fn a_row_does_not_take_the_memory_of_its_page() {
    let mut lane = lane("kv");
    let mut sequence = filled(&mut lane, 64);
    lane.grow(&mut sequence, 1).unwrap();
    sequence.write(0, 64, &[0.0; 128], &[0.0; 128]);
}

fn same_rows(a: &SequenceCache, b: &SequenceCache) {
    assert_eq!(a.len(), b.len());
    for layer in 0..SHAPE.layers {
        for (a, b) in a.k(layer).iter().zip(b.k(layer)) {
            assert_eq!(a.keys(1), b.keys(1));
        }
        for (a, b) in a.v(layer).iter().zip(b.v(layer)) {
            assert_eq!(a.rows(1, 0, PAGE_TOKENS), b.rows(1, 0, PAGE_TOKENS));
        }
        assert_eq!(a.v_sum(layer), b.v_sum(layer));
    }
}

#[test]
fn what_is_swapped_out_is_reserved_on_the_host_and_swapped_in_as_it_was() {
    for policy in ["kv", "kv-q8", "kcache:dense=1", "kcache:dense=0,k=q8"] {
        let mut lane = lane(policy);
        let mut sequence = filled(&mut lane, 100);
        let (device, host) = (lane.device().used(), lane.host().used());
        lane.swap_out(&mut sequence).unwrap();
        assert_eq!((lane.device().used(), lane.host().used()), (0, device + host), "{policy}");
        assert_eq!(lane.growth(&sequence, 0).0, device, "{policy}: the way back");
        lane.check([&sequence].into_iter()).unwrap();
        // A host without room takes nothing, and nothing changes.
        lane.grow(&mut sequence, 0).unwrap();
        assert_eq!((lane.device().used(), lane.host().used()), (device, host), "{policy}");
        lane.host.set_cap(Some(host + device - 1));
        lane.swap_out(&mut sequence).unwrap_err();
        lane.check([&sequence].into_iter()).unwrap();
        let written = filled(&mut super::tests::lane(policy), 100);
        same_rows(&sequence, &written);
        lane.close(sequence);
        assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
    }
}

#[test]
fn shared_pages_are_reserved_once_and_stay_where_somebody_needs_them() {
    for policy in ["kv", "kv-q8", "kcache:dense=1", "kcache:dense=0,k=q8"] {
        let mut lane = lane(policy);
        let mut first = filled(&mut lane, 150);
        let one = lane.device().used();
        let (block, _) = lane.resident_block();
        let mut second = lane.open().unwrap();
        lane.grow(&mut second, 150).unwrap();
        lane.share_prefix(&mut second, &first, 128, 22).unwrap();
        assert_eq!(lane.device().used(), one + lane.sum_bytes() + block, "{policy}: one page of its own");
        same_rows(&second, &filled(&mut super::tests::lane(policy), 128));
        lane.check([&first, &second].into_iter()).unwrap();

        // Only what nobody else on the device has moves; the rest moves when the last has gone.
        lane.swap_out(&mut first).unwrap();
        assert_eq!(lane.device_blocks(), 3, "{policy}");
        lane.swap_out(&mut second).unwrap();
        assert_eq!((lane.device_blocks(), lane.device().used()), (0, 0), "{policy}");
        lane.check([&first, &second].into_iter()).unwrap();
        lane.grow(&mut second, 0).unwrap();
        assert_eq!(lane.device_blocks(), 3, "{policy}");
        lane.check([&first, &second].into_iter()).unwrap();

        // The last on the device goes while the host has no room: its pages are stranded, and still in the accounts.
        lane.host.set_cap(Some(0));
        lane.close(second);
        assert!(lane.any_stranded() && lane.device_blocks() == 2, "{policy}");
        lane.check([&first].into_iter()).unwrap();
        lane.vacate(&mut first);
        assert!(!lane.any_stranded());
        assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
    }
}

#[test]
fn what_is_promoted_is_reserved_on_the_device_and_goes_back() {
    for policy in ["kv", "kcache:dense=1", "kcache:dense=0,k=q8"] {
        let mut lane = lane(policy);
        let mut first = filled(&mut lane, 150);
        let before = (lane.device().used(), lane.host().used());
        let v = lane.host().held(MemoryKind::V);
        lane.promote(&mut first).unwrap();
        assert_eq!((lane.device().used(), lane.host().used()), (before.0 + v, 0), "{policy}");
        assert_eq!(lane.can_demote(&first), v > 0, "{policy}");
        lane.check([&first].into_iter()).unwrap();
        lane.place_pages(&mut first);
        assert!(first.promoted_at(149) && first.any_promoted());

        // What it grows by comes too, where there is room.
        let (block, host) = lane.resident_block();
        lane.grow(&mut first, 64).unwrap();
        assert_eq!(lane.host().used(), 0, "{policy}");
        let used = lane.device().used();
        lane.device.set_cap(Some(used + block));
        lane.grow(&mut first, 128).unwrap();
        assert_eq!((lane.device().used(), lane.host().used()), (used + block, host), "{policy}");
        lane.device.set_cap(None);
        lane.check([&first].into_iter()).unwrap();
        lane.trim(&mut first);

        // Another may share the pages; when the first has gone they lie as the policy says.
        let mut second = lane.open().unwrap();
        lane.share_prefix(&mut second, &first, 128, 22).unwrap();
        lane.check([&first, &second].into_iter()).unwrap();
        lane.swap_out(&mut first).unwrap();
        lane.check([&first, &second].into_iter()).unwrap();
        lane.place_pages(&mut second);
        assert!(!second.any_promoted() && !first.promoted);
        lane.grow(&mut first, 0).unwrap();
        same_rows(&first, &filled(&mut super::tests::lane(policy), 150));
        lane.promote(&mut first).unwrap();
        lane.close(first);
        lane.check([&second].into_iter()).unwrap();
        assert_eq!(lane.host().held(MemoryKind::V), v, "{policy}");
        lane.close(second);
        assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");

        // All or none; and the host may have no room for the way back.
        let mut third = filled(&mut lane, 100);
        let (device, v) = (lane.device().used(), lane.host().used());
        if v > 0 {
            lane.device.set_cap(Some(device + v - 1));
            lane.promote(&mut third).unwrap_err();
            lane.check([&third].into_iter()).unwrap();
            lane.device.set_cap(None);
            lane.promote(&mut third).unwrap();
            lane.host.set_cap(Some(0));
            assert!(!lane.can_demote(&third));
            lane.demote(&mut third);
            lane.check([&third].into_iter()).unwrap();
            assert_eq!((lane.device().used(), lane.host().used()), (device + v, 0), "{policy}");
        }
        lane.close(third);
        assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
    }
}

#[test]
fn reuse_buffers_are_reserved_while_a_sequence_is_resident() {
    let (mut plain, mut lane) = (lane("kcache:dense=1"), lane("kcache:dense=1,buffer=100"));
    let bytes = SHAPE.buffer_bytes(100);
    assert!(bytes >= 3 * 2 * 100 * 64 * 2);
    let (first, mut second) = (filled(&mut plain, 100), filled(&mut lane, 100));
    assert_eq!(lane.device().used(), plain.device().used() + bytes);
    assert_eq!(second.buffers(2).len(), 2);
    lane.check([&second].into_iter()).unwrap();
    lane.swap_out(&mut second).unwrap();
    plain.close(first);
    assert_eq!((lane.device().used(), second.buffers(2).len()), (0, 0));
    lane.check([&second].into_iter()).unwrap();
    let back = lane.growth(&second, 0).0;
    lane.device.set_cap(Some(back - 1));
    lane.grow(&mut second, 0).unwrap_err();
    lane.check([&second].into_iter()).unwrap();
    lane.device.set_cap(Some(back));
    assert_eq!(lane.most_tokens(0), Some(128));
    lane.grow(&mut second, 0).unwrap();
    lane.check([&second].into_iter()).unwrap();
    lane.close(second);
    assert_eq!((lane.device().used(), lane.host().used()), (0, 0));
}

#[test]
fn a_knob_moves_what_is_not_promoted() {
    let mut lane = lane("kcache:dense=1");
    let (mut first, mut second) = (filled(&mut lane, 100), filled(&mut lane, 70));
    lane.promote(&mut first).unwrap();
    for dense in [0, 3, 2] {
        let Policy::KCache(knobs) = lane.policy() else { panic!("a lane of kcache") };
        lane.set_knobs(Knobs { dense, ..knobs }, [&mut first, &mut second].into_iter()).unwrap();
        lane.check([&first, &second].into_iter()).unwrap();
    }
    lane.demote(&mut first);
    lane.check([&first, &second].into_iter()).unwrap();
    lane.close(first);
    lane.close(second);
    assert_eq!((lane.device().used(), lane.host().used()), (0, 0));
}

#[test]
fn the_audit_finds_a_page_that_is_not_the_shared_one() {
    let mut lane = lane("kv");
    let first = filled(&mut lane, 64);
    let mut second = lane.open().unwrap();
    lane.share_prefix(&mut second, &first, 64, 0).unwrap();
    second.layers[1].v[0] = Page::copy(Format::F16, &first.layers[1].v[0]);
    let error = lane.check([&first, &second].into_iter()).unwrap_err();
    assert!(error.to_string().contains("held by 2 sequences, 1 hold it"), "{error}");
    assert!(lane.check([&first].into_iter()).is_err(), "a holder is missing");
}
