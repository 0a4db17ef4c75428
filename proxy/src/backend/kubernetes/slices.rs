//! From EndpointSlices to addresses.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What the slices of a Service say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Where its endpoints are that are ready.
    pub addresses: Vec<SocketAddr>,
    /// What of it is of no use, or that there is nothing: it may be a mistake.
    pub unusable: Option<String>,
}

/// Reads all slices of a Service, of which this port was asked for. A pod with addresses of both families counts once, by IPv4.
pub(super) fn read(slices: &[Arc<EndpointSlice>], port: u16) -> Found {
    let mut found = Found::default();
    if slices.is_empty() {
        found.unusable = Some("there is no EndpointSlice: is this the name of a Service in that namespace?".into());
    }
    // IPv4 before IPv6, and by name: nothing may depend on the order in which the API tells.
    let mut slices: Vec<_> = slices.iter().collect();
    slices.sort_by_key(|slice| (&slice.address_type, &slice.metadata.name));
    let mut by_ipv4 = HashSet::new();
    for slice in slices {
        let ready: Vec<&Endpoint> = slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)).collect();
        // One without endpoints may be without ports, which says nothing.
        if ready.is_empty() {
            continue;
        }
        let port = match port_of(slice, port) {
            Ok(port) => port,
            Err(why) => {
                found.unusable.get_or_insert(why);
                continue;
            }
        };
        for endpoint in ready {
            let pod = endpoint.target_ref.as_ref().and_then(|pod| pod.uid.as_deref());
            if slice.address_type == "IPv4" {
                by_ipv4.extend(pod);
            } else if pod.is_some_and(|pod| by_ipv4.contains(pod)) {
                continue;
            }
            // Others, if there are any, are the same endpoint's.
            let first = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
            match first.parse::<IpAddr>() {
                Ok(ip) => found.addresses.push(SocketAddr::new(ip, port)),
                Err(_) => {
                    found.unusable.get_or_insert_with(|| format!("{}: `{first}` is no IP address", name_of(slice)));
                }
            }
        }
    }
    found
}

/// What is not said counts as ready and as not about to stop, as the API's reference has it.
fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let is = |condition: Option<bool>, unsaid| condition.unwrap_or(unsaid);
    conditions.is_none_or(|conditions| is(conditions.ready, true) && !is(conditions.terminating, false))
}

/// The port of a slice's endpoints. Slices have the ports of pods, not the Service's: what was asked for must be one of these.
/// Where there is only one it is meant whatever was asked for, so that the Service's own number does, too.
fn port_of(slice: &EndpointSlice, wanted: u16) -> Result<u16, String> {
    if !matches!(&*slice.address_type, "IPv4" | "IPv6") {
        return Err(format!(
            "{} has addresses of the type {}; only IPv4 and IPv6 are of use",
            name_of(slice),
            slice.address_type
        ));
    }
    let tcp = |port: &&EndpointPort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let ports: Vec<Option<i32>> = slice.ports.iter().flatten().filter(tcp).map(|port| port.port).collect();
    match &ports[..] {
        // Any.
        ports if ports.iter().any(|port| port.is_none_or(|port| port == i32::from(wanted))) => Ok(wanted),
        [Some(only)] => u16::try_from(*only).map_err(|_| format!("{}: {only} is no port", name_of(slice))),
        ports => {
            let ports: Vec<String> = ports.iter().flatten().map(ToString::to_string).collect();
            let among = if ports.is_empty() { "no port".into() } else { format!("the ports {}", ports.join(", ")) };
            Err(format!(
                "{} has {among} of TCP; {wanted} is none of them, and must be one of the pods' own",
                name_of(slice)
            ))
        }
    }
}

fn name_of(slice: &EndpointSlice) -> &str {
    slice.metadata.name.as_deref().unwrap_or("an EndpointSlice")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What slices say of port 8000, as text: addresses, and behind ` !` what is of no use.
    fn told(slices: &[Value]) -> String {
        let slices: Vec<_> =
            slices.iter().map(|slice| Arc::new(serde_json::from_value(slice.clone()).unwrap())).collect();
        let found = read(&slices, 8000);
        let mut words: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        words.extend(found.unusable.map(|why| format!("! {why}")));
        words.join(" ")
    }

    fn slice(name: &str, family: &str, ports: Value, endpoints: Value) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": name },
            "addressType": family, "ports": ports, "endpoints": endpoints,
        })
    }

    #[test]
    fn endpoints_count_that_are_ready() {
        for (conditions, counts) in [
            (json!(null), true),
            (json!({}), true),
            (json!({ "ready": true, "serving": true, "terminating": false }), true),
            (json!({ "ready": null, "terminating": null }), true),
            (json!({ "ready": false }), false),
            (json!({ "ready": false, "serving": true, "terminating": true }), false),
            // As with `publishNotReadyAddresses`.
            (json!({ "ready": true, "terminating": true }), false),
        ] {
            let endpoints = json!([{ "addresses": ["10.0.0.5", "10.0.0.6"], "conditions": conditions }]);
            let told = told(&[slice("a", "IPv4", json!([{ "port": 8000 }]), endpoints)]);
            assert_eq!(told, if counts { "10.0.0.5:8000" } else { "" }, "{conditions}");
        }
    }

    #[test]
    fn a_port_is_one_of_the_pods_or_the_only_one() {
        let one = json!([{ "addresses": ["10.0.0.5"] }]);
        for (ports, says) in [
            (json!([{ "name": "http", "port": 8000, "protocol": "TCP" }]), "10.0.0.5:8000"),
            (json!([{ "name": "http", "port": 8080 }]), "10.0.0.5:8080"),
            (json!([{ "name": "metrics", "port": 9000 }, { "name": "http", "port": 8000 }]), "10.0.0.5:8000"),
            (json!([{ "name": "dns", "port": 8000, "protocol": "UDP" }, { "port": 8001 }]), "10.0.0.5:8001"),
            (json!([{ "name": "any" }]), "10.0.0.5:8000"),
            (
                json!([{ "name": "x", "port": 80 }, { "name": "y", "port": 81 }]),
                "! a has the ports 80, 81 of TCP; 8000 is none of them, and must be one of the pods' own",
            ),
            (json!([]), "! a has no port of TCP; 8000 is none of them, and must be one of the pods' own"),
            (json!(null), "! a has no port of TCP; 8000 is none of them, and must be one of the pods' own"),
            (json!([{ "port": 70000 }]), "! a: 70000 is no port"),
        ] {
            assert_eq!(told(&[slice("a", "IPv4", ports.clone(), one.clone())]), says, "{ports}");
        }
    }

    #[test]
    fn slices_of_a_service_are_read_together() {
        let port = json!([{ "port": 8000 }]);
        let pod = |ip: &str, uid: &str| json!({ "addresses": [ip], "targetRef": { "kind": "Pod", "uid": uid } });
        let none = "! there is no EndpointSlice: is this the name of a Service in that namespace?";
        assert_eq!(told(&[]), none);
        // Scaled to zero.
        assert_eq!(told(&[slice("a", "IPv4", json!(null), json!(null))]), "");
        let two = [
            slice("b", "IPv4", json!([{ "port": 9000 }]), json!([pod("10.0.0.7", "c")])),
            slice("a", "IPv4", port.clone(), json!([pod("10.0.0.5", "a"), pod("10.0.0.6", "b")])),
        ];
        assert_eq!(told(&two), "10.0.0.5:8000 10.0.0.6:8000 10.0.0.7:9000");
        // Both families: a pod is one target.
        let both = [
            slice(
                "a",
                "IPv6",
                port.clone(),
                json!([pod("fd00::5", "a"), pod("fd00::9", "z"), { "addresses": ["fd00::8"] }]),
            ),
            slice("b", "IPv4", port.clone(), json!([pod("10.0.0.5", "a")])),
        ];
        assert_eq!(told(&both), "10.0.0.5:8000 [fd00::9]:8000 [fd00::8]:8000");
        let names = slice("n", "FQDN", port.clone(), json!([{ "addresses": ["gpu.example.com"] }]));
        let says = "! n has addresses of the type FQDN; only IPv4 and IPv6 are of use";
        assert_eq!(told(&[names, both[1].clone()]), format!("10.0.0.5:8000 {says}"));
        let broken = slice("n", "IPv4", port, json!([{ "addresses": ["gpu"] }, { "addresses": ["10.0.0.5"] }]));
        assert_eq!(told(&[broken]), "10.0.0.5:8000 ! n: `gpu` is no IP address");
    }
}
