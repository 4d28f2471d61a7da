//! What would fit on a device, and how fast it would be: arithmetic on a model's shape, a policy and a machine's rates.
//!
//! Nothing runs here. A step is bounded as in the roofline model (Williams, Waterman and Patterson, "Roofline: an
//! insightful visual performance model", 2009): a stage takes the longer of its bytes over the bandwidth and its
//! arithmetic over the peak rate, and stages come one after the other. So a prediction is the best that a machine
//! could do; what it leaves out is listed at [`Planner::step`]. Of this machine the kernels themselves are measured, and the
//! prediction is what they take.
//!
//! | file | what it is for |
//! |---|---|
//! | [`model`] | the figures of a model, from its file or from its description |
//! | [`device`] | the rates of a device: presets with their sources, or this machine as measured |
//! | [`predict`] | sessions that fit, and the time of a step |
//! | [`compare`] | a prediction beside what was measured |
//! | `wins` | where one policy begins to win over another |
//! | [`units`] | quantities as people write them: `24GiB`, `936GB/s`, `8B` |

pub mod compare;
pub mod device;
pub mod model;
pub mod predict;
pub mod units;
mod wins;

pub use compare::{Comparison, Measured};
pub use device::{Device, PRESETS};
pub use model::{Described, PlanModel};
pub use predict::{Bound, PlanError, Planner, Prediction, Room, StepTime};
pub use wins::WinsByCtx;

#[cfg(test)]
#[path = "../../tests/support/tiny.rs"]
mod tiny;
