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
mod layers;
mod paint;
mod panel;
pub(crate) mod plain;
mod progress;
#[cfg(test)]
mod samples;
pub(crate) mod text;
mod time_range;
mod timechart;
pub(crate) mod units;
pub(crate) mod width;
pub(crate) mod wrap;

pub(crate) use axis::Axis;
pub(crate) use bars::StackedBars;
pub(crate) use coverage::CoverageCurve;
pub(crate) use footer::Footer;
pub(crate) use heads::HeadMap;
pub(crate) use heatmap::HeatMap;
pub(crate) use layers::KeptMass;
pub(crate) use panel::{LegendEntry, Panel};
pub(crate) use progress::ProgressBar;
pub(crate) use time_range::TimeRange;
pub(crate) use timechart::TimeChart;
pub use units::Unit;
