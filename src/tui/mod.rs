//! The dashboard: state, update, view, widgets, key map and themes.
