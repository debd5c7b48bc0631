//! What the reports' pictures are drawn with. Places and lengths are rounded to a tenth, which is finer than a
//! screen shows.

use svg::Document;
use svg::node::element::{Line, Rectangle, Text};

pub const INK: &str = "#1f2933";
pub const FAINT: &str = "#7b8794";
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";

/// A white page.
pub fn page(width: f64, height: f64) -> Document {
    Document::new()
        .set("viewBox", (0.0, 0.0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", FONT)
        .add(rectangle(0.0, 0.0, width, height, "#ffffff").set("rx", 10))
}

pub fn text(content: &str, x: f64, y: f64, size: f64, fill: &str) -> Text {
    Text::new(content)
        .set("x", round(x))
        .set("y", round(y))
        .set("font-size", size)
        .set("fill", fill)
}

pub fn rectangle(x: f64, y: f64, width: f64, height: f64, fill: &str) -> Rectangle {
    Rectangle::new()
        .set("x", round(x))
        .set("y", round(y))
        .set("width", round(width))
        .set("height", round(height))
        .set("fill", fill)
}

pub fn line(from: (f64, f64), to: (f64, f64), stroke: &str) -> Line {
    Line::new()
        .set("x1", round(from.0))
        .set("y1", round(from.1))
        .set("x2", round(to.0))
        .set("y2", round(to.1))
        .set("stroke", stroke)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
