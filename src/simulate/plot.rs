//! The day as a picture: bytes a second of every model and of rollcall, one group of bars a scenario, on a logarithmic scale.

use std::fmt::Write as _;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What it shows.
    pub label: String,
    /// Bytes a second; what is not positive is left out.
    pub bytes_per_s: f64,
}

/// Bars that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The scenario.
    pub name: String,
    /// At most one a label.
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Told apart by colour-blind people, too (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#d55e00", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#cc79a7"];

/// Draws `groups` as SVG.
pub fn svg(title: &str, groups: &[Group]) -> String {
    let labels = labels(groups);
    let scale = Scale::over(groups.iter().flat_map(|group| &group.bars).map(|bar| bar.bytes_per_s));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"17\">{}</text>\n",
        escape(title)
    );
    scale.draw(&mut out);
    draw_groups(&mut out, groups, &labels, &scale);
    draw_legend(&mut out, &labels);
    out.push_str("</svg>\n");
    out
}

/// Every label once, in the order in which they come.
fn labels(groups: &[Group]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for bar in groups.iter().flat_map(|group| &group.bars) {
        if !labels.contains(&bar.label.as_str()) {
            labels.push(&bar.label);
        }
    }
    labels
}

/// Powers of ten, from below the least value to above the greatest.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let exponents: Vec<f64> = values.filter(|value| *value > 0.0).map(f64::log10).collect();
        let low = exponents.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let high = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        if exponents.is_empty() {
            return Self { low: 0, high: 1 };
        }
        Self { low: low as i32, high: (high as i32).max(low as i32 + 1) }
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, out: &mut String) {
        for exponent in self.low..=self.high {
            let y = self.y(10f64.powi(exponent));
            let right = WIDTH - RIGHT;
            let _ = writeln!(out, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ccc\"/>");
            let (x, y) = (LEFT - 8.0, y + 4.0);
            let _ = writeln!(out, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>", power(exponent));
        }
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = writeln!(
            out,
            "<text transform=\"translate(22 {middle}) rotate(-90)\" text-anchor=\"middle\">bytes a second</text>"
        );
    }
}

fn draw_groups(out: &mut String, groups: &[Group], labels: &[&str], scale: &Scale) {
    let room = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let width = room * 0.8 / labels.len().max(1) as f64;
    for (n, group) in groups.iter().enumerate() {
        let left = LEFT + room * (n as f64 + 0.1);
        for bar in group.bars.iter().filter(|bar| bar.bytes_per_s > 0.0) {
            let place = labels.iter().position(|label| *label == bar.label).unwrap_or(0);
            let (x, y) = (left + width * place as f64, scale.y(bar.bytes_per_s));
            let (height, colour) = (HEIGHT - BOTTOM - y, COLOURS[place % COLOURS.len()]);
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\">\
                 <title>{}: {:.0} B/s</title></rect>",
                width * 0.9,
                escape(&bar.label),
                bar.bytes_per_s
            );
        }
        let (x, y) = (left + room * 0.4, HEIGHT - BOTTOM + 22.0);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", escape(&group.name));
    }
}

fn draw_legend(out: &mut String, labels: &[&str]) {
    let x = WIDTH - RIGHT + 20.0;
    for (n, label) in labels.iter().enumerate() {
        let (y, colour) = (TOP + 24.0 * n as f64, COLOURS[n % COLOURS.len()]);
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"{colour}\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 20.0, y + 12.0, escape(label));
    }
}

fn power(exponent: i32) -> String {
    match exponent {
        0..=2 => format!("{}", 10i64.pow(exponent.unsigned_abs())),
        3..=5 => format!("{} k", 10i64.pow((exponent - 3).unsigned_abs())),
        6..=8 => format!("{} M", 10i64.pow((exponent - 6).unsigned_abs())),
        _ => format!("1e{exponent}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greater_values_stand_higher() {
        let scale = Scale::over([3e2, 5e5].into_iter());
        assert_eq!((scale.low, scale.high), (2, 6));
        assert!(scale.y(5e5) < scale.y(3e2));
        assert_eq!(scale.y(1e2), HEIGHT - BOTTOM);
        assert_eq!(scale.y(1e6), TOP);
    }

    #[test]
    fn every_bar_is_drawn_and_named() {
        let bar = |label: &str, bytes_per_s| Bar { label: label.into(), bytes_per_s };
        let group = Group { name: "A & B".into(), bars: vec![bar("one", 10.0), bar("two", 0.0), bar("three", 1e4)] };
        let picture = svg("a < b", &[group]);
        assert_eq!(picture.matches("<title>").count(), 2);
        assert!(picture.contains("A &amp; B") && picture.contains("a &lt; b") && picture.contains(">three</text>"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(svg("", &[]).ends_with("</svg>\n"));
    }
}
