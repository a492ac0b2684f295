//! Joins against a join that shuffles both sides into a map.

use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use sort_merge_bucket::{Join, JoinKind, JoinPlan, PlanOptions, Source};

use crate::support::data::{DatasetData, Family, Names, Shape, SourceData, shapes, sources};
use crate::support::oracle::{Value, int, shuffle_join, sorted, wider_type};
use crate::support::{block_on, config, field, memory, rows, rows_by_slot};

const SEEDS: &str = "proptest-regressions/integration/joins.txt";

/// Batch sizes around the places where loops go wrong.
const BATCH_SIZES: [usize; 8] = [8192, 1, 2, 7, 49, 50, 51, 100];

#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    left: SourceData,
    right: SourceData,
    /// Whether the sides' columns have the same names, so that prefixes are needed.
    same_names: bool,
    /// Sort columns of the join key.
    sort_columns: usize,
    batch_size: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    (shapes(), any::<bool>(), 0..BATCH_SIZES.len()).prop_flat_map(|(shape, same_names, batch_size)| {
        let names = |side, own| {
            if same_names { Names { order: "", payload: "p" } } else { Names { order: side, payload: own } }
        };
        let sort = shape.families.len() - shape.keys;
        (sources(shape.clone(), names("", "p"), 20), sources(shape.clone(), names("r", "q"), 20), 0..=sort).prop_map(
            move |(left, right, sort_columns)| Case {
                shape: shape.clone(),
                left,
                right,
                same_names,
                sort_columns,
                batch_size,
            },
        )
    })
}

/// The schema of a join's output, written down once more.
fn expected_schema(kind: JoinKind, merge: usize, left: &[Field], right: &[Field], prefixes: (&str, &str)) -> Schema {
    use JoinKind as J;
    let mut fields = vec![];
    for (l, r) in left.iter().zip(right).take(merge) {
        let nullable = match kind {
            J::Inner | J::LeftSemi | J::RightSemi => false,
            J::Left | J::LeftAnti => l.is_nullable(),
            J::Right | J::RightAnti => r.is_nullable(),
            J::Full => l.is_nullable() || r.is_nullable(),
        };
        let name = if matches!(kind, J::RightSemi | J::RightAnti) { r.name() } else { l.name() };
        fields.push(Field::new(name, wider_type(l.data_type(), r.data_type()), nullable));
    }
    let has_left = !matches!(kind, J::RightSemi | J::RightAnti);
    let has_right = !matches!(kind, J::LeftSemi | J::LeftAnti);
    let mut side = |own: &[Field], prefix: &str, absent: bool| {
        for f in &own[merge..] {
            fields.push(Field::new(format!("{prefix}{}", f.name()), f.data_type().clone(), f.is_nullable() || absent));
        }
    };
    if has_left {
        side(left, prefixes.0, matches!(kind, J::Right | J::Full));
    }
    if has_right {
        side(right, prefixes.1, matches!(kind, J::Left | J::Full));
    }
    Schema::new(fields)
}

fn plan(case: &Case, kind: JoinKind, left: &Source, right: &Source, batch_size: usize) -> JoinPlan {
    let join = Join::new(kind, left.clone(), right.clone())
        .with_sort_columns(case.sort_columns)
        .with_options(PlanOptions::default().with_batch_size(batch_size));
    let join = if case.same_names { join.with_left_prefix("l.").with_right_prefix("r.") } else { join };
    join.plan().unwrap()
}

proptest! {
    #![proptest_config(config(160, SEEDS))]

    #[test]
    fn oracle_every_join_kind_equals_the_shuffle_join(case in cases()) {
        block_on(async {
            let store = memory();
            let left = case.left.write(&store, "left").await;
            let right = case.right.write(&store, "right").await;
            let merge = case.shape.keys + case.sort_columns;
            let (left_fields, right_fields) = (case.left.fields(merge), case.right.fields(merge));
            let (left_side, right_side) = (case.left.side(merge), case.right.side(merge));
            let prefixes = if case.same_names { ("l.", "r.") } else { ("", "") };
            for (at, kind) in JoinKind::ALL.into_iter().enumerate() {
                let batch_size = BATCH_SIZES[(case.batch_size + at) % BATCH_SIZES.len()];
                let plan = plan(&case, kind, &left, &right, batch_size);
                let expected_schema = expected_schema(kind, merge, &left_fields, &right_fields, prefixes);
                assert_eq!(plan.schema().as_ref(), &expected_schema, "{kind}");
                let expected = shuffle_join(kind, merge, &left_side, &right_side);
                let found = if at % 2 == 0 { rows(&plan).await } else { rows_by_slot(&plan).await };
                assert_eq!(sorted(found), sorted(expected), "{kind} join, batches of {batch_size}");
            }
        });
    }
}

/// Every key family with every pair of its types, one after the other, so that none is left to chance.
#[test]
fn oracle_every_pair_of_key_types_of_a_family_joins() {
    block_on(async {
        for family in Family::ALL {
            for left_type in family.types() {
                for right_type in family.types() {
                    let side = |data_type: &DataType, payload: &str, buckets: u32| {
                        let mut rows = vec![];
                        for (at, value) in family.pool().into_iter().enumerate() {
                            if crate::support::data::holds(data_type, &value) {
                                rows.push(vec![value, int(at as i128)]);
                            }
                        }
                        rows.push(vec![Value::Null, int(-1)]);
                        rows.extend(rows[..rows.len() / 2].to_vec());
                        let fields = vec![field("k", data_type.clone(), true), field(payload, DataType::Int64, false)];
                        SourceData::from(DatasetData::new(fields, &["k"], buckets, rows))
                    };
                    let (left, right) = (side(&left_type, "l", 6), side(&right_type, "r", 4));
                    let store = memory();
                    let plan = Join::full(left.write(&store, "left").await, right.write(&store, "right").await)
                        .plan()
                        .unwrap();
                    assert_eq!(plan.slots().get(), 2);
                    let expected = shuffle_join(JoinKind::Full, 1, &left.side(1), &right.side(1));
                    assert_eq!(sorted(rows(&plan).await), sorted(expected), "{left_type} with {right_type}");
                }
            }
        }
    });
}
