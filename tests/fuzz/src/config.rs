//! Configuration and site files.

use trunkline_control::config::ControlConfig;
use trunkline_control::site::SiteDocument;
use trunkline_edge_api::config::{Document, parse_document};

/// Reads the input as `trunkline.toml` and as a site file; every problem names a line of it.
pub fn site_config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    check::<ControlConfig>(text);
    check::<SiteDocument>(text);
}

fn check<T: Document>(text: &str) {
    let Err(error) = parse_document::<T>(text, "input.toml") else {
        return;
    };
    assert!(!error.problems().is_empty(), "a refusal says why");
    assert!(error.to_string().contains("input.toml"));
}
