//! What the dashboard draws with: one small file per widget.
//!
//! Every widget is a borrowed view of data that is drawn into any area, 0×0 included, without panicking. Where room is
//! short a widget degrades by itself: fewer labels, then a sparkline, then one line of figures.

pub(crate) mod ascii;
mod axis;
mod bars;
mod braille;
mod coverage;
mod footer;
mod heads;
mod heatmap;
mod histogram;
mod kpi;
mod layers;
mod paint;
mod panel;
pub(crate) mod plain;
mod progress;
#[cfg(test)]
mod samples;
mod time_range;
mod timechart;
pub mod units;
pub(crate) mod width;
pub(crate) mod wrap;

pub use axis::Axis;
pub use bars::{Bar, Part, StackedBars};
pub use coverage::CoverageCurve;
pub use footer::Footer;
pub use heads::HeadMap;
pub use heatmap::HeatMap;
pub use histogram::{LatencyHistogram, LatencyLane};
pub use kpi::{Comparison, Kpi};
pub use layers::KeptMass;
pub use panel::{LegendEntry, Panel};
pub use progress::Progress;
pub use time_range::TimeRange;
pub use timechart::{Line, TimeChart};
pub use units::Unit;
