//! Latencies as a picture: how many reads take how long, and within which time a part of them was done.

use std::error::Error as StdError;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::*;

use tierstack::Error;

use crate::failure::Outcome;
use crate::output;

const SIZE: (u32, u32) = (1040, 460);
const COLOURS: [RGBColor; 2] = [RGBColor(0x0b, 0x7a, 0x75), RGBColor(0xb4, 0x6a, 0x00)];
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xe8);
/// Bars for each tenfold.
const BARS: f64 = 16.0;
/// Points of a curve.
const POINTS: usize = 240;

type Drawn<T = ()> = Result<T, Box<dyn StdError>>;

/// One store: what it is called, and how long each read took, in nanoseconds.
struct Curve<'a> {
    name: &'a str,
    sorted: Vec<u32>,
    colour: RGBColor,
}

/// The picture as SVG.
pub(super) fn draw(title: &str, measured: &[(String, &[u32])]) -> Outcome<String> {
    let curves: Vec<_> = measured
        .iter()
        .zip(COLOURS)
        .map(|((name, nanos), colour)| {
            let mut sorted = nanos.to_vec();
            sorted.sort_unstable();
            Curve { name, sorted, colour }
        })
        .collect();
    let mut picture = String::new();
    let drawn = paint(&mut picture, title, &curves);
    // What the library says is only known as text.
    drawn.map_err(|error| Error::internal(format!("the picture cannot be drawn: {error}")))?;
    Ok(picture)
}

fn paint(picture: &mut String, title: &str, curves: &[Curve<'_>]) -> Drawn {
    let root = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.margin(12, 8, 14, 30);
    let (head, body) = root.split_vertically(30 + 20 * curves.len() as i32);
    head.draw_text(&format!("Reads: {title}"), &style(16), (6, 2))?;
    for (at, curve) in (0_i32..).zip(curves) {
        let y = 30 + 20 * at;
        head.draw(&Rectangle::new([(8, y + 2), (20, y + 12)], curve.colour.filled()))?;
        let words: Vec<_> = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)]
            .map(|(name, part)| format!("{name} {}", in_words(f64::from(curve.at(part)))))
            .into();
        head.draw_text(&format!("{}: {}", curve.name, words.join(", ")), &style(14), (28, y))?;
    }
    let (left, right) = body.split_horizontally((SIZE.0 / 2 - 20) as i32);
    let lowest = curves.iter().filter_map(|curve| curve.sorted.first()).min().copied();
    let highest = curves.iter().filter_map(|curve| curve.sorted.last()).max().copied();
    // Whole tenfolds, so that both panels have lines at round times.
    let (low, high) =
        (f64::from(lowest.unwrap_or(1).max(1)), f64::from(highest.unwrap_or(1).max(1)));
    let range = (10f64.powf(low.log10().floor()), 10f64.powf((high * 1.001).log10().ceil()));
    histogram(&left, curves, range)?;
    percentiles(&right, curves, range)?;
    root.present()?;
    Ok(())
}

/// How many of the reads take how long.
fn histogram(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    curves: &[Curve<'_>],
    (low, high): (f64, f64),
) -> Drawn {
    let bars: Vec<_> = curves.iter().map(|curve| curve.shares(low, high)).collect();
    let top = bars.iter().flatten().map(|(_, share)| *share).fold(0.01, f64::max) * 1.08;
    let mut chart = ChartBuilder::on(area)
        .caption("part of the reads that takes so long", style(14))
        .margin(6)
        .x_label_area_size(30)
        .y_label_area_size(52)
        .build_cartesian_2d((low..high).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_label_formatter(&|nanos| round_in_words(*nanos))
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .y_labels(6)
        .label_style(style(12))
        .draw()?;
    for (curve, bars) in curves.iter().zip(&bars) {
        let mut outline = vec![(low, 0.0)];
        for (from, share) in bars {
            let to = from * 10f64.powf(1.0 / BARS);
            outline.extend([(*from, *share), (to.min(high), *share)]);
        }
        outline.push((high, 0.0));
        chart.draw_series([Polygon::new(outline.clone(), curve.colour.mix(0.22))])?;
        chart.draw_series(LineSeries::new(outline, curve.colour.stroke_width(2)))?;
    }
    Ok(())
}

/// Within which time a part of the reads was done, with the slowest drawn wide apart.
fn percentiles(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    curves: &[Curve<'_>],
    (low, high): (f64, f64),
) -> Drawn {
    let most = curves.iter().map(|curve| curve.sorted.len()).max().unwrap_or(1);
    // One of ten, of a hundred, of a thousand ...: one step each.
    let end = (most as f64).log10().clamp(1.0, 5.0);
    let mut chart = ChartBuilder::on(area)
        .caption("time within which a part of the reads is done", style(14))
        .margin(6)
        .x_label_area_size(30)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..end, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(end as usize + 1)
        .x_label_formatter(&|nines| part_in_words(*nines))
        .y_label_formatter(&|nanos| round_in_words(*nanos))
        .label_style(style(12))
        .draw()?;
    for curve in curves {
        let points = (0..=POINTS).map(|at| {
            let nines = end * at as f64 / POINTS as f64;
            (nines, f64::from(curve.at(1.0 - 10f64.powf(-nines)).max(1)))
        });
        chart.draw_series(LineSeries::new(points, curve.colour.stroke_width(2)))?;
    }
    Ok(())
}

impl Curve<'_> {
    /// The time within which that part of the reads was done.
    fn at(&self, part: f64) -> u32 {
        let place = (self.sorted.len() as f64 * part).ceil() as usize;
        let place = place.saturating_sub(1).min(self.sorted.len().saturating_sub(1));
        self.sorted.get(place).copied().unwrap_or(0)
    }

    /// For each bar where it begins, and the part of the reads in it.
    fn shares(&self, low: f64, high: f64) -> Vec<(f64, f64)> {
        let bars = ((high / low).log10() * BARS).round() as i32;
        let from = |bar: i32| low * 10f64.powf(f64::from(bar) / BARS);
        let below = |nanos: f64| self.sorted.partition_point(|it| f64::from(*it) < nanos);
        let all = self.sorted.len().max(1) as f64;
        let share = |bar| (below(from(bar + 1)) - below(from(bar))) as f64 / all;
        (0..bars).map(|bar| (from(bar), share(bar))).collect()
    }
}

fn style(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn in_words(nanos: f64) -> String {
    output::duration(Duration::from_nanos(nanos.round() as u64))
}

/// `10 µs`: a time at a line of the picture.
fn round_in_words(nanos: f64) -> String {
    in_words(nanos).replace(".00 ", " ").replace(".0 ", " ")
}

/// `90 %`, `99.9 %`
fn part_in_words(nines: f64) -> String {
    match nines.round() as i32 {
        0 => "fastest".to_owned(),
        1 => "90 %".to_owned(),
        nines => format!(
            "99{}{} %",
            if nines > 2 { "." } else { "" },
            "9".repeat(nines.max(2) as usize - 2)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_curves_are_drawn_and_a_name_is_text() {
        let fast: Vec<u32> = (0..1000).map(|at| 150 + at % 90).collect();
        let slow: Vec<u32> = (0..1000).map(|at| 20_000 + 37 * at).collect();
        let name = "<script>alert(1)</script> of a&b.yaml".to_owned();
        let measured = [(name, fast.as_slice()), ("bare of b.yaml".to_owned(), slow.as_slice())];
        let picture = draw("a skewed pattern", &measured).ok().unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        assert!(!picture.contains("<script"), "names are text");
        assert!(picture.contains("p50 194 ns") && picture.contains("99.9 %"), "{picture}");
    }

    #[test]
    fn what_is_hardly_measured_is_drawn_as_well() {
        for nanos in [&[][..], &[0], &[7], &[u32::MAX, u32::MAX]] {
            assert!(draw("t", &[("a".to_owned(), nanos)]).is_ok(), "{nanos:?}");
        }
    }

    #[test]
    fn every_read_is_in_one_bar() {
        let curve = Curve { name: "", sorted: (100..1100).collect(), colour: INK };
        let sum: f64 = curve.shares(100.0, 10_000.0).iter().map(|(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
