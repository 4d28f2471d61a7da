//! The scales of the charts. They are state, so that a scale follows its values calmly from frame to frame.

use super::metrics::Metrics;
use crate::telemetry::Series;
use crate::tui::widgets::{Axis, TimeRange, Unit};

#[derive(Debug, Clone)]
pub struct Axes {
    /// Bytes of the cache on the device.
    pub device: Axis,
    pub gpu: Axis,
    /// Bytes of V in host memory.
    pub host_v: Axis,
    pub latency: Axis,
    pub throughput: Axis,
    /// Bytes of a whole tier, weights included.
    pub ledger: Axis,
    pub kl: Axis,
    pub cpu: Axis,
}

impl Default for Axes {
    fn default() -> Self {
        Self {
            device: Axis::new(Unit::Bytes),
            gpu: Axis::new(Unit::Bytes),
            host_v: Axis::new(Unit::Bytes),
            latency: Axis::new(Unit::Ms),
            throughput: Axis::new(Unit::TokensPerSecond),
            ledger: Axis::new(Unit::Bytes),
            kl: Axis::new(Unit::Nats),
            cpu: Axis::new(Unit::Percent),
        }
    }
}

impl Axes {
    /// Follows what is on show.
    pub fn follow(&mut self, metrics: &Metrics, span: TimeRange) {
        let (from_ms, to_ms) = (span.to_ms - span.length_ms, span.to_ms);
        let follow = |axis: &mut Axis, maxima: &mut dyn Iterator<Item = Option<f64>>| {
            if let Some(max) = maxima.flatten().reduce(f64::max) {
                axis.follow(to_ms, max);
            }
        };
        let lanes = &metrics.lanes;
        let max = |series: &Series| series.max(from_ms, to_ms);
        follow(&mut self.device, &mut lanes.iter().flat_map(|lane| [max(&lane.device), max(&lane.kv_equivalent)]));
        follow(&mut self.host_v, &mut lanes.iter().map(|lane| max(&lane.host_v)));
        follow(&mut self.latency, &mut lanes.iter().map(|lane| max(&lane.step_ms)));
        follow(&mut self.throughput, &mut lanes.iter().map(|lane| max(&lane.tok_s)));
        follow(&mut self.kl, &mut std::iter::once(max(&metrics.kl)));
        follow(&mut self.gpu, &mut metrics.gpus.iter().map(|gpu| max(&gpu.memory)));
        follow(
            &mut self.ledger,
            &mut lanes.iter().filter_map(|lane| lane.ledger_at(to_ms)).map(|ledger| {
                let device =
                    ledger.device.weights.saturating_add(ledger.device.cache().max(ledger.kv_equivalent_bytes));
                Some(device.max(ledger.host.total()) as f64)
            }),
        );
        follow(&mut self.cpu, &mut [max(&metrics.process_cpu), max(&metrics.cpu)].into_iter());
    }
}
