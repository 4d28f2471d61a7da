//! What the user has chosen to see: preset, focus, chart, overlay, and where charts stand still.

use crate::{engine::Lane, tui::input::action::Scope};

/// The pane that hears the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    Composer,
    Sessions,
    Transcript(Lane),
    Charts,
    Attention,
}

impl Focus {
    /// The bindings that hold there.
    pub fn scope(self) -> Scope {
        match self {
            Self::Composer => Scope::Composer,
            Self::Sessions => Scope::Sessions,
            Self::Transcript(_) => Scope::Transcript,
            Self::Charts => Scope::Charts,
            Self::Attention => Scope::Attention,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    Both,
    Chat,
    Charts,
    Figures,
    /// Where the rows lie.
    Attention,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chart {
    /// Bytes of the cache on the device, per lane.
    Device,
    /// Memory of the GPUs as NVML reports it.
    Gpu,
    /// Bytes of both tiers by owner.
    Ledger,
    /// Bytes of V in host memory.
    HostV,
    /// Milliseconds per token.
    Latency,
    /// Milliseconds per token by stage.
    Stages,
    /// Tokens per second.
    Throughput,
    /// How far the lanes' predictions are apart, where both are fed the same.
    Divergence,
    /// Where the selected rows lie.
    Hits,
    /// Kept mass per layer.
    KeptMass,
    /// Who runs, who waits and who was preempted, per lane.
    Queue,
    /// CPU and memory of the host.
    Host,
}

/// What lies over the panes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    None,
    /// The keys, filtered by what was typed.
    Help {
        query: String,
        selected: usize,
    },
    /// A new name for the session on show.
    Rename(String),
    /// Whether to close the session on show.
    ConfirmClose,
    /// The form for a load, or what becomes of the one that runs.
    Workload,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frozen {
    /// The right edge of the charts, in engine milliseconds.
    pub end_ms: f64,
    /// The moment under the cursor.
    pub cursor_ms: f64,
    /// Whether the message was being written when they were stopped.
    pub was_writing: bool,
}
