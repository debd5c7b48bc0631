//! Medians and spreads.

/// The median; the mean of the two in the middle where there is no single one. NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The least and the most.
pub fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

/// The median of the quotients of values that were measured side by side.
pub fn median_ratio(values: &[f64], reference: &[f64]) -> f64 {
    median(&std::iter::zip(values, reference).map(|(a, b)| a / b).collect::<Vec<_>>())
}

/// The mean of ratios. NaN of nothing.
pub fn geometric_mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine was half as fast in the second round, for both.
        assert_eq!(median_ratio(&[20.0, 10.0, 20.0], &[10.0, 5.0, 10.0]), 2.0);
    }

    #[test]
    fn ranges_and_means() {
        assert_eq!(range(&[2.0, 1.0, 3.0]), (1.0, 3.0));
        assert!((geometric_mean(&[0.5, 2.0]) - 1.0).abs() < 1e-12);
    }
}
