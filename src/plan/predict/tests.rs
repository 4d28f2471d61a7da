//! Predictions against cases computed by hand, against the ledger, and in what must hold for any machine.

use proptest::prelude::*;

use super::*;
use crate::{
    bench::Spread,
    cache::{LaneCache, MemoryKind},
    plan::{WinsByCtx, wins::faster},
};

fn model() -> PlanModel {
    PlanModel {
        name: "two layers".into(),
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        weight_bytes: 1_000_000,
        step_bytes: 1_000_000,
        multiplied: 500_000,
        context: Some(8192),
    }
}

fn device() -> Device {
    Device {
        name: "slow".into(),
        memory_bytes: 20_000_000,
        host_bytes: None,
        bandwidth: 1e9,
        weight_bandwidth: 1e9,
        link: 1e8,
        linear_flops: Some(1e10),
        attention_flops: Some(1e10),
        one_memory: false,
        attention: None,
    }
}

fn planner() -> Planner {
    Planner::new(model(), device(), Room::Share(0.9)).unwrap()
}

fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
}

#[test]
fn a_step_is_the_one_computed_by_hand() {
    // K and V: 2 layers · 2 heads · 1000 rows · 128 bytes · 2 = 1,024,000 bytes a session.
    let kv = planner().step(&Policy::Kv, 1000, 2);
    close(kv.linear, 0.001);
    close(kv.attention, 0.002_048);
    assert_eq!((kv.link, kv.bound), (0.0, Bound::Cache));
    close(planner().tok_s(&Policy::Kv, 1000, 2), 2.0 / 0.003_048);

    // K of both layers, V of one, and 4 · 1000 scores of 12 bytes; 4 · 100 rows of 128 bytes over the link.
    let kcache = planner().step(&policy("kcache:n=100,dense=1"), 1000, 1);
    close(kcache.attention, 0.000_816);
    close(kcache.link, 0.000_512);
    close(kcache.total(), 0.002_328);
    assert_eq!(kcache.bound, Bound::Weights);
    let group = planner().step(&policy("kcache:n=100,dense=1,select=group"), 1000, 1);
    close(group.link, 0.000_256);
    // A head cannot choose more than there is: 2 · 1000 rows and not 4 · 600; with N ≥ S no score is stored.
    close(planner().step(&policy("kcache:n=600,dense=1"), 1000, 1).link, 0.002_56);
    let whole = planner().step(&policy("kcache:n=1000,dense=1"), 1000, 1);
    close(whole.link, 0.002_56);
    close(whole.attention, 0.000_768);
    assert_eq!(whole.bound, Bound::Link);

    // 8-bit rows are 64 + 2 · 2 bytes.
    close(planner().step(&Policy::KvQ8, 1000, 1).attention, 8000.0 * 68.0 / 1e9);
    // 2 · 500,000 operations a session: 100 of them take longer than the weights.
    let many = planner().step(&Policy::Kv, 1, 100);
    close(many.linear, 0.01);
    assert_eq!(many.bound, Bound::Arithmetic);
}

/// Times of kernels in nanoseconds: every row read of 16 bits, of 8 and of both; rows chosen by keys of 16 bits and of 8.
fn attention([all_f16, all_q8, all_mixed, choose_f16, choose_q8]: [f64; 5]) -> AttentionRates {
    let [all_f16_ns, all_q8_ns, all_mixed_ns, choose_f16_ns, choose_q8_ns, row_ns] =
        [all_f16, all_q8, all_mixed, choose_f16, choose_q8, 1280.0].map(|ns| Spread { median: ns, min: 0.0, max: 1e9 });
    AttentionRates { all_f16_ns, all_q8_ns, all_mixed_ns, choose_f16_ns, choose_q8_ns, row_ns }
}

#[test]
fn a_step_of_measured_kernels_is_the_one_computed_by_hand() {
    let measured = Device { attention: Some(attention([10.0, 8.0, 9.0, 6.0, 5.0])), ..device() };
    let planner = Planner::new(model(), measured, Room::Share(0.9)).unwrap();
    // 1 ms for the weights with one row, 1,000,000 operations at 10 GFLOP/s for each further one.
    let kv = planner.step(&Policy::Kv, 1000, 3);
    close(kv.linear, 0.001 + 2.0 * 0.0001);
    // 3 sessions · 2 layers · 4 heads · 1000 positions.
    close(kv.attention, 24_000.0 * 10e-9);
    assert_eq!((kv.link, kv.bound), (0.0, Bound::Weights));
    close(planner.step(&Policy::KvQ8, 1000, 3).attention, 24_000.0 * 8e-9);
    // One layer reads all, the other chooses 4 · 100 rows of 128 bytes.
    let kcache = planner.step(&policy("kcache:n=100,dense=1"), 1000, 1);
    close(kcache.linear, 0.001);
    close(kcache.attention, 4000.0 * (10e-9 + 6e-9));
    close(kcache.link, 0.000_512);
    close(planner.step(&policy("kcache:n=100,dense=1,k=q8"), 1000, 1).attention, 4000.0 * (9e-9 + 5e-9));
    // With N ≥ S nobody chooses, and nothing comes over a link that attention has not in its time.
    let whole = planner.step(&policy("kcache:n=1000,dense=1"), 1000, 1);
    close(whole.attention, 8000.0 * 10e-9);
    assert_eq!(whole.link, 0.0);
    assert_eq!(planner.step(&Policy::Kv, 1000, 1000).bound, Bound::Arithmetic);
    assert_eq!(planner.step(&Policy::Kv, 100_000, 10).bound, Bound::Cache);
}

#[test]
fn sessions_leave_room_for_the_buffers_of_their_step() {
    let planner = Planner::new(model(), device(), Room::Budget(10 * 1_048_576 + 1000)).unwrap();
    assert_eq!(planner.sessions_beside(&Policy::Kv, 1000, |_| 0), 10);
    assert_eq!(planner.sessions_beside(&Policy::Kv, 1000, |sessions| 100 * sessions as u64), 10);
    assert_eq!(planner.sessions_beside(&Policy::Kv, 1000, |sessions| 101 * sessions as u64), 9);
    assert_eq!(planner.sessions_beside(&Policy::Kv, 1000, |_| 1 << 30), 0);
}

#[test]
fn sessions_are_whole_and_in_whole_pages() {
    let planner = planner();
    assert_eq!(planner.budget(), 17_000_000);
    // 16 pages of 16,384 bytes for each of K and V in 2 layers.
    assert_eq!(planner.session_bytes(&Policy::Kv, 1000), (1_048_576, 0));
    assert_eq!(planner.session_bytes(&policy("kcache:dense=1"), 1000), (524_288 + 262_144 + 1024, 262_144));
    assert_eq!((planner.sessions(&Policy::Kv, 1000), planner.sessions(&Policy::Kv, 1025)), (16, 15));
    assert_eq!(planner.sessions(&policy("kcache:dense=1"), 1000), 21);
    assert_eq!(planner.sessions(&Policy::Kv, 1 << 20), 0);

    let host = Device { host_bytes: Some(1_000_000), ..device() };
    let bounded = Planner::new(model(), host, Room::Share(0.9)).unwrap();
    assert_eq!((bounded.sessions(&policy("kcache:dense=1"), 1000), bounded.sessions(&Policy::Kv, 1000)), (3, 16));
    // Where device and host are one memory, nothing is won; with a budget the split is an account.
    let one = Device { one_memory: true, ..device() };
    let shared = Planner::new(model(), one.clone(), Room::Share(0.9)).unwrap();
    assert_eq!(shared.sessions(&policy("kcache:dense=1"), 1000), shared.sessions(&Policy::Kv, 1000));
    let account = Planner::new(model(), one, Room::Budget(17_000_000)).unwrap();
    assert_eq!(account.sessions(&policy("kcache:dense=1"), 1000), 21);
    let small = Planner::new(model(), Device { memory_bytes: 1_000_000, ..device() }, Room::Share(0.9));
    assert!(small.unwrap_err().to_string().starts_with("the weights take 0 MiB"));
}

#[test]
fn a_saturated_lane_is_its_full_step() {
    let planner = planner();
    let kcache = planner.predict(&policy("kcache:n=100,dense=1"), 1000);
    assert_eq!(kcache.sessions, 21);
    close(kcache.step_ms.unwrap(), 1e3 * (0.0021 + 21.0 * (0.000_816 + 0.000_512)));
    close(kcache.tok_s.unwrap(), 21e3 / kcache.step_ms.unwrap());
    // Everything but the link takes longer than the link.
    close(kcache.tok_s_overlapped.unwrap(), 21.0 / (0.0021 + 21.0 * 0.000_816));
    let kv = planner.predict(&Policy::Kv, 1000);
    assert_eq!((kv.tok_s_overlapped, kv.host_bytes), (None, 0));
    let none = planner.predict(&Policy::Kv, 1 << 20);
    assert_eq!((none.sessions, none.tok_s, none.step_ms, none.bound), (0, None, None, None));
}

/// A link as fast as the memory: what is not read is won. And one so slow that nothing is.
#[test]
fn the_link_decides_who_wins() {
    let kcache = policy("kcache:n=64,dense=0");
    let with_link = |link| Planner::new(model(), Device { link, ..device() }, Room::Share(0.9)).unwrap();
    let fast = with_link(1e9);
    assert_eq!(fast.wins_from_sessions(&kcache, &Policy::Kv, 4096), Some(1));
    // At short contexts every row is chosen, which costs the same here, and twice the sessions fit.
    let wins = fast.wins_by_ctx(&kcache, &Policy::Kv, 8192);
    assert!(wins.from.is_some_and(|from| (64..1024).contains(&from)), "{wins:?}");
    assert_eq!((wins.up_to, wins.longest), (8192, Some(8192)));
    let slow = with_link(1e5);
    assert_eq!(slow.wins_from_sessions(&kcache, &Policy::Kv, 4096), None);
    let never = WinsByCtx { up_to: 8192, from: None, longest: None };
    assert_eq!(slow.wins_by_ctx(&kcache, &Policy::Kv, 8192), never);
    assert_eq!(fast.wins_from_sessions(&kcache, &kcache, 4096), None);
    // Where not even one session of the baseline fits, one of the other is enough.
    assert_eq!(fast.sessions(&Policy::Kv, 20_000), 0);
    assert_eq!(fast.wins_from_sessions(&kcache, &Policy::Kv, 20_000), Some(1));
}

#[test]
fn a_step_that_is_too_long_has_fewer_sessions() {
    // 1 ms for the weights of up to 10 sessions, and 1.024 ms of attention for each.
    assert_eq!(planner().sessions(&Policy::Kv, 1000), 16);
    let within = |ms: f64| planner().within(Some(ms));
    for (ms, sessions) in [(1.0, 0), (2.024, 1), (2.03, 1), (9.0, 7), (1e3, 16)] {
        assert_eq!(within(ms + 1e-9).sessions(&Policy::Kv, 1000), sessions, "{ms} ms");
    }
    let found = within(9.0).predict(&Policy::Kv, 1000);
    assert_eq!((found.sessions, found.sessions_in_memory), (7, 16));
    assert!(found.step_ms.is_some_and(|ms| ms <= 9.0), "{found:?}");
    let none = within(1.0).predict(&Policy::Kv, 1000);
    assert_eq!((none.sessions, none.tok_s, none.step_ms), (0, None, None));
    close(none.step_ms_alone.unwrap(), 2.024);
    assert_eq!(planner().predict(&Policy::Kv, 1 << 20).step_ms_alone, None, "memory holds none");
}

/// What a table says of one context and what is said of all of them is the same claim.
#[test]
fn winning_at_a_context_and_from_a_context_on_agree() {
    // Faster at short contexts, which read every row and keep half as much, and slower where rows come over the link.
    let device = Device { link: 3e7, ..device() };
    let planner = Planner::new(model(), device, Room::Share(0.9)).unwrap();
    let few = policy("kcache:n=64,dense=0");
    let many = policy("kcache:n=8192,dense=0,k=q8");
    for policy in [few, many, Policy::KvQ8] {
        for planner in [planner.clone(), planner.clone().within(Some(20.0))] {
            let found = planner.wins_by_ctx(&policy, &Policy::Kv, 8192);
            let wins = |ctx: usize| planner.wins_from_sessions(&policy, &Policy::Kv, ctx).is_some();
            let (mut from, mut longest) = (None, None);
            for ctx in (64..=found.up_to).step_by(64) {
                if wins(ctx) {
                    from = from.or(Some(ctx));
                    longest = Some(ctx);
                } else {
                    from = None;
                }
            }
            assert_eq!((found.from, found.longest), (from, longest), "{policy}");
        }
    }
    // Beyond what either has room for nothing is claimed.
    let found = planner.wins_by_ctx(&few, &Policy::Kv, 1 << 20);
    assert!((8192..1 << 20).contains(&found.up_to), "{found:?}");
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::Kv),
        Just(Policy::KvQ8),
        (1usize..600, 0usize..6, any::<bool>(), any::<bool>()).prop_map(|(n, dense, group, q8)| {
            let select = if group { "group" } else { "head" };
            policy(&format!("kcache:n={n},dense={dense},select={select},k={}", if q8 { "q8" } else { "f16" }))
        }),
    ]
}

prop_compose! {
    fn planners()(
        layers in 1usize..6, kv_heads in 1usize..4, group in 1usize..5, head_dim in (1usize..5).prop_map(|x| 32 * x),
        weights in 1u64..5_000_000, memory in 6_000_000u64..60_000_000, host in any::<bool>(), one_memory in any::<bool>(),
        bandwidth in 1e8..1e11, link in 1e7..1e11, flops in proptest::option::of(1e9..1e13),
        kernels in proptest::option::of(proptest::array::uniform5(0.1..100.0f64)),
    ) -> Planner {
        let model = PlanModel {
            layers, heads: kv_heads * group, kv_heads, head_dim,
            weight_bytes: weights, step_bytes: weights, multiplied: 2 * weights, ..model()
        };
        let device = Device {
            memory_bytes: memory, host_bytes: host.then_some(memory), bandwidth, weight_bandwidth: bandwidth, link,
            // A row more takes no longer than the first one with the reading of the weights.
            linear_flops: flops.map(|flops: f64| if kernels.is_some() { flops.max(4.0 * bandwidth) } else { flops }),
            attention_flops: flops, one_memory, attention: kernels.map(attention), ..device()
        };
        Planner::new(model, device, Room::Share(0.9)).unwrap()
    }
}

proptest! {
    #[test]
    fn bytes_are_those_of_the_ledger(planner in planners(), policy in policies(), ctx in 1usize..700) {
        let mut lane = LaneCache::new(planner.model().cache(), policy, None, None);
        let mut sequence = lane.open().unwrap();
        lane.grow(&mut sequence, ctx).unwrap();
        let held = |tier: &crate::cache::MemoryPool| [MemoryKind::K, MemoryKind::V, MemoryKind::Tail].map(|owner| tier.held(owner)).iter().sum::<u64>();
        prop_assert_eq!(planner.session_bytes(&policy, ctx), (held(lane.device()), held(lane.host())));
    }

    #[test]
    fn more_of_anything_is_never_worse(
        planner in planners(), policy in policies(), ctx in 1usize..5000, factor in 1.0..8.0f64, sessions in 1usize..40,
    ) {
        let rate = |planner: &Planner| planner.predict(&policy, ctx).tok_s.unwrap_or(0.0) * (1.0 + 1e-9);
        let base = planner.predict(&policy, ctx);
        let more = Planner { budget: (planner.budget as f64 * factor) as u64, ..planner.clone() };
        prop_assert!(more.sessions(&policy, ctx) >= base.sessions && rate(&more) >= base.tok_s.unwrap_or(0.0));
        prop_assert!(planner.sessions(&policy, ctx + 500) <= base.sessions);
        let device = planner.device.clone();
        for faster in [
            Device { bandwidth: device.bandwidth * factor, ..device.clone() },
            Device { weight_bandwidth: device.weight_bandwidth * factor, ..device.clone() },
            Device { link: device.link * factor, ..device.clone() },
            Device { linear_flops: None, ..device.clone() },
            Device { attention_flops: None, ..device.clone() },
        ] {
            let faster = Planner { device: faster, ..planner.clone() };
            prop_assert!(rate(&faster) >= base.tok_s.unwrap_or(0.0));
        }
        let one = planner.step(&policy, ctx, sessions).total();
        prop_assert!(planner.step(&policy, ctx + 100, sessions).total() >= one || policy.knobs().is_some());
        prop_assert!(planner.tok_s(&policy, ctx, sessions + 1) * (1.0 + 1e-9) >= planner.tok_s(&policy, ctx, sessions));
        if let (Some(overlapped), Some(serial)) = (base.tok_s_overlapped, base.tok_s) {
            prop_assert!(overlapped >= serial);
        }
    }

    #[test]
    fn a_search_finds_what_looking_at_each_finds(
        planner in planners(), policy in policies(), baseline in policies(), ctx in 1usize..3000,
        longest in proptest::option::of(0.1..1e3f64),
    ) {
        let planner = planner.within(longest);
        let fits = [&policy, &baseline].map(|policy| planner.sessions(policy, ctx));
        let wins = |asked: usize| {
            faster(planner.tok_s(&policy, ctx, asked.min(fits[0])), planner.tok_s(&baseline, ctx, asked.min(fits[1])))
        };
        let last = fits[0].max(fits[1]).max(1);
        let from = (1..=last).rev().take_while(|&asked| wins(asked)).last();
        prop_assert_eq!(planner.wins_from_sessions(&policy, &baseline, ctx), from);
    }
}
