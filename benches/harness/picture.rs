//! Pictures for the README: latencies with and without the cache, side by side.

use std::path::Path;

use plotters::prelude::*;

/// What one store's replay came to.
pub(crate) struct Replayed {
    pub(crate) store: String,
    /// Microseconds, without the cache and with it.
    pub(crate) p50: (f64, f64),
    pub(crate) p99: (f64, f64),
    /// Reads that reached the store, without the cache and with it.
    pub(crate) queries: (u64, u64),
}

const WITHOUT: RGBColor = RGBColor(0xb0, 0xb7, 0xc3);
const WITH: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);

/// Draws the latencies on a logarithmic scale, one panel a store. `saving`: what the store is asked less for.
pub(crate) fn draw(path: &Path, title: &str, saving: &str, replays: &[Replayed]) {
    let width = 340 * replays.len() as u32;
    let root = SVGBackend::new(path, (width, 360)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let style = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let root = root.titled(title, style(16)).unwrap();
    for (panel, replay) in root.split_evenly((1, replays.len())).iter().zip(replays) {
        let highest = replay.p99.0.max(replay.p99.1) * 4.0;
        let lowest = replay.p50.0.min(replay.p50.1) / 2.0;
        let saved = 100.0 * (1.0 - replay.queries.1 as f64 / replay.queries.0 as f64);
        let mut chart = ChartBuilder::on(panel)
            .caption(format!("{}: {saved:.1} % of the {saving} saved", replay.store), style(15))
            .margin(12)
            .x_label_area_size(24)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..5.0, (lowest..highest).log_scale())
            .unwrap();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(0xe6, 0xe8, 0xeb))
            .axis_style(TRANSPARENT)
            .x_labels(6)
            .x_label_formatter(&|x| group(*x).to_owned())
            .y_labels(6)
            .y_label_formatter(&|micros| in_words(*micros))
            .label_style(style(12))
            .draw()
            .unwrap();
        let bars = [
            (0.05, replay.p50.0, WITHOUT),
            (1.05, replay.p50.1, WITH),
            (3.05, replay.p99.0, WITHOUT),
            (4.05, replay.p99.1, WITH),
        ];
        let filled = bars.iter().map(|(left, micros, color)| {
            Rectangle::new([(*left, lowest), (left + 0.9, *micros)], color.filled())
        });
        chart.draw_series(filled).unwrap();
        let labels = bars.iter().map(|(left, micros, _)| {
            Text::new(in_words(*micros), (left + 0.1, micros * 1.55), style(13))
        });
        chart.draw_series(labels).unwrap();
    }
    root.present().unwrap();
}

/// The name of the two bars around a place on the axis.
fn group(x: f64) -> &'static str {
    match x.round() as i64 {
        1 => "median",
        4 => "99th percentile",
        _ => "",
    }
}

/// A time as a person says it.
pub(crate) fn in_words(micros: f64) -> String {
    match micros {
        micros if micros < 1.0 => format!("{micros:.2} µs"),
        micros if micros < 10.0 => format!("{micros:.1} µs"),
        micros if micros < 1000.0 => format!("{micros:.0} µs"),
        micros => format!("{:.1} ms", micros / 1000.0),
    }
}
