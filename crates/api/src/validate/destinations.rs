//! What all rules of a VirtualService share: destinations, weights, the gateways they are for.

use super::Report;
use super::names::{self, check_host, check_port};
use crate::networking::Destination;

/// A gateway as a VirtualService names it: `mesh`, `name`, `namespace/name`, or the old `name.namespace`.
pub(super) fn gateway_name(gateway: &str, field: &str, report: &mut Report<'_>) {
    let valid = match gateway.split_once('/') {
        Some((namespace, name)) => names::is_label(namespace) && names::is_label(name),
        None => names::is_host(gateway),
    };
    if !valid {
        report.error(
            field,
            format!("`{gateway}` is not a gateway"),
            "write `name` or `namespace/name`, or `mesh` for sidecars",
        );
    }
}

/// Where a rule sends to.
pub(super) fn destination(to: &Destination, field: &str, report: &mut Report<'_>) {
    let host = format!("{field}.host");
    if to.host == "*" {
        report.error(&host, "`*` cannot be a destination", "name a service");
    } else {
        check_host(&to.host, &host, report);
    }
    if !to.subset.is_empty() && !names::is_host_label(&to.subset) {
        let message = format!("`{}` is not a subset's name", to.subset);
        report.error(&format!("{field}.subset"), message, names::HOST_LABEL_HELP);
    }
    check_port(to.port.as_ref(), &format!("{field}.port"), report);
}

/// The weights of a rule's destinations.
pub(super) fn weights(weights: impl Iterator<Item = i32>, field: &str, report: &mut Report<'_>) {
    let mut sum: i64 = 0;
    let mut count = 0;
    for (index, weight) in weights.enumerate() {
        if weight < 0 {
            let message = format!("the weight {weight} is negative");
            report.error(
                &format!("{field}[{index}].weight"),
                message,
                "weights are 0 or more, relative to their sum",
            );
        }
        sum += i64::from(weight);
        count += 1;
    }
    if count > 1 && sum == 0 {
        let help = "give each destination a `weight:`, such as 80 and 20";
        report.error(field, "the weights of several destinations sum up to 0", help);
    }
}

/// The gateways named in a match.
pub(super) fn gateways(gateways: &[String], field: &str, report: &mut Report<'_>) {
    for (index, gateway) in gateways.iter().enumerate() {
        gateway_name(gateway, &format!("{field}.gateways[{index}]"), report);
    }
}
