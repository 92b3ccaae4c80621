//! Volume arithmetic against a model that goes sector by sector. Host.

use crate::volume::fakes::unit;
use crate::volume::{Piece, UnitRef, Volume};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// A span as it is asked for: stripes as (unit, start), sectors of a chunk, rows. One stripe is linear.
#[derive(Clone, Debug)]
struct Asked {
    stripes: Vec<(u16, u64)>,
    chunk: u64,
    rows: u64,
}

fn asked() -> impl Strategy<Value = Asked> {
    (prop::collection::vec((0..3_u16, 0..200_u64), 1..4), 1..10_u64, 1..6_u64)
        .prop_map(|(stripes, chunk, rows)| Asked { stripes, chunk, rows })
}

/// The volume, and the place of each of its sectors by the definition of striping.
fn build(spans: &[Asked]) -> (Volume, Vec<(UnitRef, u64)>) {
    let mut volume = Volume::default();
    let mut model = Vec::new();
    for span in spans {
        let stripes: Vec<_> = span.stripes.iter().map(|(number, start)| (unit(*number), *start)).collect();
        let sectors = span.chunk * span.rows * stripes.len() as u64;
        for row in 0..span.rows {
            for (unit, start) in &stripes {
                model.extend((0..span.chunk).map(|sector| (*unit, start + row * span.chunk + sector)));
            }
        }
        match stripes.as_slice() {
            [(unit, start)] => volume.push_linear(*unit, *start, sectors).unwrap(),
            _ => volume.push_striped(stripes, span.chunk, sectors).unwrap(),
        }
    }
    (volume, model)
}

fn expand(pieces: impl Iterator<Item = Piece>) -> Vec<(UnitRef, u64)> {
    pieces
        .flat_map(|piece| (piece.sector..piece.sector + piece.sectors).map(move |sector| (piece.unit, sector)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_are_the_models_sectors(spans in prop::collection::vec(asked(), 0..5), sector in 0..400_u64, sectors in 0..400_u64) {
        let (volume, model) = build(&spans);
        prop_assert_eq!(volume.sectors(), model.len() as u64);
        let expected = model.get(sector as usize..(sector + sectors) as usize);
        prop_assert_eq!(volume.contains(sector, sectors), expected.is_some());
        let pieces = expand(volume.pieces(sector, sectors));
        prop_assert_eq!(&pieces, &expected.unwrap_or_default());
        // The extents are the same sectors, each once.
        let mut all = expand(volume.extents());
        let mut whole = model;
        all.sort_unstable();
        whole.sort_unstable();
        prop_assert_eq!(all, whole);
    }

    #[test]
    fn no_number_leads_out(sector: u64, sectors: u64, start: u64, length: u64, chunk: u64, other: u64) {
        for volume in [Volume::linear(unit(0), start, length), {
            let mut volume = Volume::linear(unit(0), start, length);
            let _ = volume.push_striped(vec![(unit(0), start), (unit(1), other)], chunk, chunk.saturating_mul(4));
            volume
        }] {
            let extents: Vec<_> = volume.extents().collect();
            let mut total = 0;
            for piece in volume.pieces(sector, sectors).take(1000) {
                prop_assert!(piece.sectors > 0);
                let end = piece.sector.checked_add(piece.sectors).unwrap();
                prop_assert!(extents.iter().any(|extent| extent.unit == piece.unit
                    && extent.sector <= piece.sector
                    && end <= extent.sector + extent.sectors));
                total += piece.sectors;
            }
            prop_assert!(total <= sectors);
        }
    }
}

#[test]
fn runs_that_go_on_are_one_piece() {
    let mut volume = Volume::linear(unit(0), 100, 8);
    volume.push_linear(unit(0), 108, 8).unwrap();
    volume.push_linear(unit(0), 200, 8).unwrap();
    let pieces: Vec<_> = volume.pieces(4, 16).collect();
    let piece = |sector, sectors| Piece { unit: unit(0), sector, sectors };
    assert_eq!(pieces, [piece(104, 12), piece(200, 4)]);
}

#[test]
fn nothing_is_given_where_not_all_can_be() {
    let volume = Volume::linear(unit(0), 100, 8);
    for (sector, sectors) in [(0, 9), (8, 1), (7, 2), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
        assert!(!volume.contains(sector, sectors));
        assert_eq!(volume.pieces(sector, sectors).count(), 0);
    }
    assert_eq!(Volume::linear(unit(0), u64::MAX, 1), Volume::default());
    let mut volume = Volume::default();
    assert_eq!(volume.push_striped(vec![], 8, 8), None);
    assert_eq!(volume.push_striped(vec![(unit(0), 0), (unit(1), 0)], 8, 24), None);
    assert_eq!(volume.push_striped(vec![(unit(0), 0), (unit(1), u64::MAX - 15)], 8, 32), None);
    assert_eq!(volume.push_striped(vec![(unit(0), 0)], 0, 8), None);
    assert_eq!(volume, Volume::default());
}
