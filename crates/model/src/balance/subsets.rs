//! Endpoints by their metadata: one table for each subset that a request may ask for.

use super::spread::{Criteria, Fallback, Subsets};
use super::table::{Candidate, Table};
use super::{LoadBalancing, Spread};
use crate::metadata::Value;
use std::collections::BTreeSet;

/// The tables of a cluster, by subset where it has subsets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SubsetTables {
    /// All endpoints.
    all: Table,
    subsets: Option<Box<Compiled>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Compiled {
    rule: Subsets,
    /// Those of [`Subsets::default`].
    default: Table,
    tables: Vec<(Criteria, Table)>,
}

/// An endpoint's metadata, by its position.
pub(super) type Labels<'l> = &'l dyn Fn(u32) -> Option<&'l Criteria>;

impl SubsetTables {
    /// The tables of `candidates`, whose metadata `labels` knows.
    pub fn new(
        policy: LoadBalancing,
        spread: &Spread,
        candidates: &[Candidate<'_>],
        labels: Labels<'_>,
    ) -> Self {
        let all = Table::new(policy, spread, candidates);
        let Some(rule) = &spread.subsets else { return Self { all, subsets: None } };
        let inner = Spread {
            weighted_localities: spread.weighted_localities && rule.weighted_localities,
            ..spread.clone()
        };
        let of = |criteria: &Criteria| {
            let meets = |c: &&Candidate<'_>| {
                labels(c.position)
                    .map_or(criteria.is_empty(), |labels| meets(labels, criteria, rule.list_as_any))
            };
            let mut inside: Vec<Candidate<'_>> = candidates.iter().filter(meets).cloned().collect();
            if rule.scaled_localities {
                scale(&mut inside, candidates);
            }
            Table::new(policy, &inner, &inside)
        };
        let mut wanted: Vec<Criteria> = Vec::new();
        for selector in &rule.selectors {
            for labels in candidates.iter().filter_map(|c| labels(c.position)) {
                for criteria in criteria_of(labels, &selector.keys, rule.list_as_any) {
                    if !wanted.contains(&criteria) {
                        wanted.push(criteria);
                    }
                }
            }
        }
        let default = of(&rule.default);
        let tables = wanted.into_iter().map(|criteria| (criteria.clone(), of(&criteria))).collect();
        Self { all, subsets: Some(Box::new(Compiled { rule: rule.clone(), default, tables })) }
    }

    /// The table for a request that asks for endpoints like `wanted`; `None` when nothing may be used.
    pub fn table(&self, wanted: &Criteria) -> Option<&Table> {
        let Some(Compiled { rule, default, tables }) = self.subsets.as_deref() else {
            return Some(&self.all);
        };
        if !wanted.is_empty()
            && let Some((_, table)) = tables.iter().find(|(criteria, _)| criteria == wanted)
        {
            return Some(table);
        }
        let names_keys = |keys: &BTreeSet<String>| !wanted.is_empty() && keys.iter().eq(wanted.keys());
        let selector = rule.selectors.iter().find(|selector| names_keys(&selector.keys));
        if let Some(keys) = selector.map(|selector| &selector.fallback_keys).filter(|keys| !keys.is_empty()) {
            let named = wanted.iter().filter(|(key, _)| keys.contains(*key));
            let fewer: Criteria = named.map(|(key, value)| (key.clone(), value.clone())).collect();
            // Fewer each time, so that there is an end to it.
            if fewer.len() < wanted.len() {
                return self.table(&fewer);
            }
        }
        let found = match selector.and_then(|selector| selector.fallback).unwrap_or(rule.fallback) {
            Fallback::None => None,
            Fallback::Any => Some(&self.all),
            Fallback::Default => Some(default),
        };
        found.or(rule.panic_any.then_some(&self.all))
    }

    /// The table of all endpoints.
    pub fn all(&self) -> &Table {
        &self.all
    }
}

/// Lets the locality of each of `inside` weigh what of `all` its endpoints are still there.
fn scale(inside: &mut [Candidate<'_>], all: &[Candidate<'_>]) {
    let place = |c: &Candidate<'_>| (c.priority, c.locality);
    let places: Vec<(u32, u32)> = inside.iter().map(place).collect();
    for candidate in inside {
        let at = place(candidate);
        let here = places.iter().filter(|other| **other == at).count() as u64;
        let there = all.iter().filter(|other| place(other) == at).count() as u64;
        candidate.locality_weight =
            candidate.locality_weight.map(|weight| (u64::from(weight) * here).div_ceil(there.max(1)) as u32);
    }
}

fn meets(labels: &Criteria, criteria: &Criteria, list_as_any: bool) -> bool {
    criteria.iter().all(|(key, wanted)| match labels.get(key) {
        Some(found) if found == wanted => true,
        Some(Value::List(all)) if list_as_any => all.contains(wanted),
        _ => false,
    })
}

/// The subsets that an endpoint belongs to; none when it lacks a key.
fn criteria_of(labels: &Criteria, keys: &BTreeSet<String>, list_as_any: bool) -> Vec<Criteria> {
    /// A list in every key would multiply; so many are enough.
    const MOST: usize = 64;
    let mut found = vec![Criteria::new()];
    for key in keys {
        let values = match labels.get(key) {
            None => return Vec::new(),
            Some(Value::List(all)) if list_as_any => all.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let with = |value: &Value| {
            let value = value.clone();
            let add = |criteria: &Criteria| {
                let mut criteria = criteria.clone();
                criteria.insert(key.clone(), value.clone());
                criteria
            };
            found.iter().map(add).collect::<Vec<_>>()
        };
        found = values.iter().flat_map(with).take(MOST).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Ask, Standing, SubsetSelector};
    use super::*;

    fn criteria(pairs: &[(&str, &str)]) -> Criteria {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
    }

    /// Endpoints 0 and 1 are `v1`, 2 is `v2` in stage `prod`, 3 has no labels.
    fn tables(rule: Subsets) -> SubsetTables {
        let labels = [
            criteria(&[("version", "v1")]),
            criteria(&[("version", "v1"), ("stage", "prod")]),
            criteria(&[("version", "v2"), ("stage", "prod")]),
        ];
        let candidates: Vec<Candidate<'_>> = (0..4)
            .map(|position| Candidate {
                position,
                priority: 0,
                locality: 0,
                locality_weight: None,
                weight: 1,
                standing: Standing::Healthy,
                key: "",
                is_left: false,
            })
            .collect();
        let spread = Spread { subsets: Some(rule), ..Spread::default() };
        SubsetTables::new(LoadBalancing::RoundRobin, &spread, &candidates, &|at| labels.get(at as usize))
    }

    fn rule(fallback: Fallback) -> Subsets {
        let selector = |keys: &[&str]| SubsetSelector {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            fallback: None,
            fallback_keys: BTreeSet::new(),
        };
        Subsets {
            fallback,
            default: criteria(&[("stage", "prod")]),
            selectors: vec![selector(&["version"]), selector(&["stage", "version"])],
            ..Subsets::default()
        }
    }

    fn picks(tables: &SubsetTables, wanted: &[(&str, &str)]) -> Vec<u32> {
        let Some(table) = tables.table(&criteria(wanted)) else { return Vec::new() };
        let pick = |turn| table.pick(&Ask { turn, ..Ask::default() }, |_| 0);
        let found: BTreeSet<u32> = (0..20).filter_map(pick).collect();
        found.into_iter().collect()
    }

    #[test]
    fn a_subset_holds_those_with_its_values() {
        let tables = tables(rule(Fallback::None));
        assert_eq!(picks(&tables, &[("version", "v1")]), [0, 1]);
        assert_eq!(picks(&tables, &[("version", "v1"), ("stage", "prod")]), [1]);
        assert_eq!(picks(&tables, &[("version", "v3")]), []);
        assert_eq!(picks(&tables, &[("stage", "prod")]), [], "there is no selector for it");
    }

    #[test]
    fn what_is_in_no_subset_falls_back_as_the_cluster_says() {
        let none: &[(&str, &str)] = &[];
        for wanted in [none, &[("version", "v3")]] {
            assert_eq!(picks(&tables(rule(Fallback::None)), wanted), []);
            assert_eq!(picks(&tables(rule(Fallback::Any)), wanted), [0, 1, 2, 3]);
            assert_eq!(picks(&tables(rule(Fallback::Default)), wanted), [1, 2]);
        }
        let mut own = rule(Fallback::Any);
        own.selectors.iter_mut().for_each(|selector| selector.fallback = Some(Fallback::None));
        assert_eq!(picks(&tables(own), &[("version", "v3")]), []);
    }

    #[test]
    fn a_request_may_be_content_with_fewer_keys() {
        let mut fewer = rule(Fallback::None);
        fewer.selectors[1].fallback_keys = ["version".to_owned()].into();
        let tables = tables(fewer);
        assert_eq!(picks(&tables, &[("version", "v1"), ("stage", "prod")]), [1]);
        assert_eq!(picks(&tables, &[("version", "v1"), ("stage", "test")]), [0, 1]);
        assert_eq!(picks(&tables, &[("version", "v3"), ("stage", "test")]), []);
    }

    #[test]
    fn without_subsets_what_is_asked_for_does_not_matter() {
        let plain = SubsetTables::new(LoadBalancing::Random, &Spread::default(), &[], &|_| None);
        assert!(plain.table(&criteria(&[("version", "v1")])).is_some());
    }
}
