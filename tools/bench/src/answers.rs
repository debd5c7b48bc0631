//! Do contenders compute the same?

/// By how much floats may differ from those that they should be.
pub const RELATIVE: f32 = 1e-5;
pub const ABSOLUTE: f32 = 1e-6;

/// Whether two answers are the same but for rounding.
pub fn agree(a: &[f32], b: &[f32]) -> bool {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= RELATIVE * a.abs() + ABSOLUTE;
    a.len() == b.len() && a.iter().zip(b).all(close)
}

/// Whether the answers to all requests agree with those that they should be.
pub fn all_agree(answers: &[Vec<f32>], reference: &[Vec<f32>]) -> bool {
    answers.len() == reference.len()
        && answers.iter().zip(reference).all(|(answer, right)| agree(right, answer))
}

/// The largest difference, relative to what is tolerated.
pub fn deviation(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let tolerated = |a: f32| RELATIVE * a.abs() + ABSOLUTE;
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs() / tolerated(*a)).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_no_difference() {
        assert!(agree(&[0.5, 1e-9], &[0.500_004, 0.0]));
        assert!(!agree(&[0.5], &[0.500_1]));
        assert!(!agree(&[0.5], &[0.5, 0.5]));
        assert!(!agree(&[0.5], &[f32::NAN]));
    }

    #[test]
    fn one_is_just_tolerated() {
        let deviation = deviation(&[vec![0.9]], &[vec![0.9 + 1e-5]]);
        assert!((deviation - 1.0).abs() < 0.01, "{deviation}");
    }
}
