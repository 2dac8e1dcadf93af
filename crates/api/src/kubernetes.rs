//! The Kubernetes kinds we read, with the fields we have a use for. All others are accepted in silence: they are the
//! cluster's business, not the mesh's.

use std::collections::BTreeMap;
use std::fmt;

use crate::decode::{Bytes, Decode, Decoder, IntOrString, choice, message};
use crate::yaml::Node;

message! {
    /// A service: a name, ports, and the labels of the workloads behind it.
    pub struct Service {
        /// Its ports.
        pub ports: Vec<ServicePort>,
        /// Labels of its workloads; empty when its endpoints come from elsewhere.
        pub selector: BTreeMap<String, String>,
        /// Its virtual address; `None` for a headless service.
        pub cluster_ip as "clusterIP": String,
        /// ClusterIP, NodePort, LoadBalancer or ExternalName.
        pub r#type: ServiceType,
        /// What an ExternalName service stands for.
        pub external_name: String,
        /// `ClientIP` or `None`.
        pub session_affinity: String,
        /// Whether endpoints count before they are ready.
        pub publish_not_ready_addresses: bool,
    }
}

choice! {
    /// How a service is reached.
    pub enum ServiceType {
        /// Inside.
        ClusterIp = ("ClusterIP", 0),
        /// Also on every node.
        NodePort = ("NodePort", 1),
        /// Also from outside.
        LoadBalancer = ("LoadBalancer", 2),
        /// An alias of another name.
        ExternalName = ("ExternalName", 3),
    }
}

message! {
    /// A port of a service.
    pub struct ServicePort {
        /// Its name; tells the protocol (`http-web`) where `app_protocol` does not.
        pub name: String,
        /// The port clients use, from 1.
        pub port: u16,
        /// The port of the workload, by number or name; the same when absent.
        pub target_port: Option<IntOrString>,
        /// Transport.
        pub protocol: Transport,
        /// `http`, `grpc`, `tcp`, `kubernetes.io/h2c`...
        pub app_protocol: String,
        /// Port on every node.
        pub node_port: u16,
    }
}

choice! {
    /// Transport protocol.
    pub enum Transport {
        /// TCP.
        Tcp = ("TCP", 0),
        /// UDP.
        Udp = ("UDP", 1),
        /// SCTP.
        Sctp = ("SCTP", 2),
    }
}

/// A secret: keys and certificates, by name. Its fields stand beside `metadata`, not below `spec`.
#[derive(Clone, Default, PartialEq)]
pub struct Secret {
    /// What it holds, decoded.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    /// Names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.data.keys()).finish()
    }
}

message! {
    /// The two ways of writing it.
    struct WrittenSecret {
        data: BTreeMap<String, Bytes>,
        string_data: BTreeMap<String, String>,
    }
}

impl Decode for Secret {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let written = WrittenSecret::decode(node, decoder)?;
        let plain = written.string_data.into_iter().map(|(name, text)| (name, text.into_bytes()));
        Some(Self {
            data: written.data.into_iter().map(|(name, bytes)| (name, bytes.0)).chain(plain).collect(),
        })
    }
}

message! {
    /// Replicas of a pod.
    pub struct Deployment {
        /// How many; 1 when absent.
        pub replicas: Option<i32>,
        /// Which pods are its own.
        pub selector: LabelSelector,
        /// What its pods are.
        pub template: PodTemplate,
    }
}

message! {
    /// Labels that pods have.
    pub struct LabelSelector {
        /// All of them.
        pub match_labels: BTreeMap<String, String>,
        /// Further conditions.
        pub match_expressions: Vec<LabelSelectorRequirement>,
    }
}

message! {
    /// A condition on a label.
    pub struct LabelSelectorRequirement {
        /// The label.
        pub key: String,
        /// In, NotIn, Exists or DoesNotExist.
        pub operator: String,
        /// For In and NotIn.
        pub values: Vec<String>,
    }
}

message! {
    /// What the pods of a Deployment are.
    pub struct PodTemplate {
        /// Their labels and annotations.
        pub metadata: TemplateMetadata,
        /// What runs in them.
        pub spec: PodSpec,
    }
}

message! {
    /// Labels and annotations of pods.
    pub struct TemplateMetadata {
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Annotations.
        pub annotations: BTreeMap<String, String>,
    }
}

message! {
    /// What runs in a pod.
    pub struct PodSpec {
        /// Its containers.
        pub containers: Vec<Container>,
        /// Who it is; `default` when empty.
        pub service_account_name: String,
        /// Deprecated name of the same.
        pub service_account: String,
    }
}

impl PodSpec {
    /// The service account it runs as.
    pub fn identity(&self) -> &str {
        match (self.service_account_name.as_str(), self.service_account.as_str()) {
            ("", "") => "default",
            ("", old) => old,
            (name, _) => name,
        }
    }
}

message! {
    /// A process of a pod.
    pub struct Container {
        /// Its name.
        pub name: String,
        /// Its image.
        pub image: String,
        /// Overrides the image's entry point.
        pub command: Vec<String>,
        /// Overrides the image's arguments.
        pub args: Vec<String>,
        /// Its environment.
        pub env: Vec<EnvironmentVariable>,
        /// The ports it listens on.
        pub ports: Vec<ContainerPort>,
    }
}

message! {
    /// A variable of a container's environment.
    pub struct EnvironmentVariable {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: String,
        /// Where its value comes from instead.
        pub value_from: Option<EnvironmentSource>,
    }
}

message! {
    /// Where the value of a variable comes from. Secrets and ConfigMaps are not read.
    pub struct EnvironmentSource {
        /// A field of the pod.
        pub field_ref: Option<FieldReference>,
    }
}

message! {
    /// A field of the pod.
    pub struct FieldReference {
        /// `metadata.name`, `metadata.namespace`, `metadata.labels['app']`, `spec.serviceAccountName`, `status.podIP`...
        pub field_path: String,
    }
}

message! {
    /// A port a container listens on.
    pub struct ContainerPort {
        /// The number, from 1.
        pub container_port: u16,
        /// Its name, for a service's `targetPort`.
        pub name: String,
        /// Transport.
        pub protocol: Transport,
    }
}
