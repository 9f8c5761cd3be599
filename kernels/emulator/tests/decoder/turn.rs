//! Positions, norms of heads, and the way into the cache.

use std::ffi::c_void;
use std::ptr;

use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Kernel, Launch, in_orders};

use crate::values::{assert_close, from_bytes, input, noise, rounded, to_bytes};
use crate::{SEEDS, to_u32};

#[derive(Clone, Copy)]
#[repr(C)]
struct TurnParams {
    q: *const c_void,
    k: *const c_void,
    v: *const c_void,
    q_norm: *const c_void,
    k_norm: *const c_void,
    cosines: *const f32,
    sines: *const f32,
    position: *const u32,
    turned: *mut c_void,
    keys: *mut c_void,
    values: *mut c_void,
    heads: u32,
    groups: u32,
    width: u32,
    capacity: u32,
    eps: f32,
    reserved: u32,
}

/// A head, normed and turned by the angles of its position.
fn turned(head: &[f64], norm: Option<&[f64]>, cosines: &[f32], sines: &[f32]) -> Vec<f64> {
    let mean = head.iter().map(|x| x * x).sum::<f64>() / head.len() as f64;
    let normed: Vec<f64> = match norm {
        None => head.to_vec(),
        Some(weight) => {
            head.iter().zip(weight).map(|(x, weight)| x / (mean + 1e-6).sqrt() * weight).collect()
        }
    };
    let half = head.len() / 2;
    let angle = |i: usize| (f64::from(cosines[i % half]), f64::from(sines[i % half]));
    (0..head.len())
        .map(|i| match (i < half, angle(i)) {
            (true, (cosine, sine)) => normed[i] * cosine - normed[i + half] * sine,
            (false, (cosine, sine)) => normed[i - half] * sine + normed[i] * cosine,
        })
        .collect()
}

#[test]
fn heads_are_turned_and_keys_and_values_go_to_their_place_in_the_cache_alone() {
    for dtype in DType::ALL {
        for (heads, groups, width, capacity, position, with_norms) in [
            (4, 2, 64, 3, 1, false),
            (2, 2, 128, 5, 4, true),
            (3, 1, 72, 2, 0, true),
            (8, 1, 32, 4, 3, false),
        ] {
            let case =
                format!("{heads} heads, {groups} groups of {width}, position {position}, norms {with_norms}");
            let [q, k, v] =
                [(heads, 1), (groups, 2), (groups, 3)].map(|(count, seed)| noise(count * width, seed));
            let norms = [noise(width, 4), noise(width, 5)];
            let (cosines, sines) = (noise(capacity * width / 2, 6), noise(capacity * width / 2, 7));
            let cache: Vec<f32> = noise(groups * capacity * width, 8);
            let [of_q, of_k, of_v] =
                [("q", &q), ("k", &k), ("v", &v)].map(|(name, values)| input(name, values, dtype));
            let of_norms = norms.each_ref().map(|norm| with_norms.then(|| input("norm", norm, dtype)));
            let [q_norm, k_norm] = of_norms
                .each_ref()
                .map(|norm| norm.as_ref().map_or(ptr::null(), |norm| norm.address().cast()));
            let angles =
                [("cosines", &cosines), ("sines", &sines)].map(|(name, values)| Buffer::input(name, values));
            let at = Buffer::input("position", &[to_u32(position)]);
            let work = |seed| {
                let turned = Buffer::<u8>::output("turned", heads * width * dtype.size_bytes());
                let caches = ["keys", "values"].map(|name| Buffer::in_out(name, &to_bytes(&cache, dtype)));
                let params = TurnParams {
                    q: of_q.address().cast(),
                    k: of_k.address().cast(),
                    v: of_v.address().cast(),
                    q_norm,
                    k_norm,
                    cosines: angles[0].address(),
                    sines: angles[1].address(),
                    position: at.address(),
                    turned: turned.address_mut().cast(),
                    keys: caches[0].address_mut().cast(),
                    values: caches[1].address_mut().cast(),
                    heads: to_u32(heads),
                    groups: to_u32(groups),
                    width: to_u32(width),
                    capacity: to_u32(capacity),
                    eps: 1e-6,
                    reserved: 0,
                };
                let kernel = Kernel::named(&format!("gptq_decoder_turn_{dtype}"))?;
                let grid = [to_u32(heads + 2 * groups), 1, 1];
                Launch { kernel, grid, block: [32, 1, 1], shared_bytes: 0, params }.run(seed)?;
                Ok([turned.to_vec(), caches[0].to_vec(), caches[1].to_vec()])
            };
            let found = in_orders(SEEDS, work)
                .unwrap_or_else(|problem| panic!("{case}, {dtype}: {problem}"))
                .expect("outputs")
                .map(|bytes| from_bytes(&bytes, dtype));
            let [q, k, v] = [q, k, v].map(|values| rounded(&values, dtype));
            let norms = norms.map(|norm| with_norms.then(|| rounded(&norm, dtype)));
            let half = width / 2;
            let angles = |values: &[f32]| values[position * half..][..half].to_vec();
            let (cosines, sines) = (angles(&cosines), angles(&sines));
            let of = |values: &[f64], norm: Option<&[f64]>| -> Vec<f64> {
                values.chunks(width).flat_map(|head| turned(head, norm, &cosines, &sines)).collect()
            };
            assert_close(&found[0], &of(&q, norms[0].as_deref()), dtype, &case);
            for (found, new) in [(&found[1], of(&k, norms[1].as_deref())), (&found[2], v)] {
                let mut expected = rounded(&cache, dtype);
                for (group, head) in new.chunks(width).enumerate() {
                    expected[(group * capacity + position) * width..][..width].copy_from_slice(head);
                }
                assert_close(found, &expected, dtype, &format!("{case}: the cache"));
            }
        }
    }
}
