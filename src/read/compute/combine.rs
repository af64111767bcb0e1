//! Weighted sums of several tensors, element by element.

use multiversion::multiversion;

pub(super) fn combine(inputs: &[&mut [f32]], weights: &[f32], divisor: f32, result: &mut [f32]) {
    result.fill(0.0);
    for (input, weight) in inputs.iter().zip(weights) {
        add_product(input, *weight, result);
    }
    for value in result {
        *value /= divisor;
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn add_product(input: &[f32], weight: f32, sums: &mut [f32]) {
    add_product_anywhere(input, weight, sums);
}

/// Compiled for each instruction set that `add_product` chooses from.
#[inline(always)]
pub(super) fn add_product_anywhere(input: &[f32], weight: f32, sums: &mut [f32]) {
    for (sum, x) in sums.iter_mut().zip(input) {
        *sum = x.mul_add(weight, *sum);
    }
}

pub(super) fn deltas(inputs: &[&mut [f32]], weights: &[f32], result: &mut [f32]) {
    let Some((base, others)) = inputs.split_first() else {
        return;
    };
    for (number, (input, weight)) in others.iter().zip(weights).enumerate() {
        for ((sum, x), base) in result.iter_mut().zip(&**input).zip(&**base) {
            let delta = (x - base) * weight;
            *sum = if number == 0 { delta } else { *sum + delta };
        }
    }
    for (sum, base) in result.iter_mut().zip(&**base) {
        *sum += base;
    }
}

pub(super) fn shift(inputs: &[&mut [f32]], scale: f32, result: &mut [f32]) {
    if let [base, delta] = inputs {
        for ((value, base), delta) in result.iter_mut().zip(&**base).zip(&**delta) {
            *value = base + delta * scale;
        }
    }
}
