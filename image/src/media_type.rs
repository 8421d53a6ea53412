//! Media types: the OCI names, the Docker names, and which mean the same.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! media_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a blob holds.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum MediaType {
            $($(#[$doc])* $variant,)*
            /// A type that rbuild carries but does not understand.
            Other(String),
        }

        impl MediaType {
            /// The name as it stands in documents and headers.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for MediaType {
            fn from(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Other(name.to_owned()),
                }
            }
        }
    };
}

media_types! {
    /// An OCI image index.
    OciIndex = "application/vnd.oci.image.index.v1+json",
    /// An OCI image manifest.
    OciManifest = "application/vnd.oci.image.manifest.v1+json",
    /// An OCI image config.
    OciConfig = "application/vnd.oci.image.config.v1+json",
    /// An uncompressed layer.
    OciLayer = "application/vnd.oci.image.layer.v1.tar",
    /// A gzip layer.
    OciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip",
    /// A zstd layer.
    OciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd",
    /// A Docker manifest list, equivalent to an OCI index.
    DockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json",
    /// A Docker manifest, schema 2.
    DockerManifest = "application/vnd.docker.distribution.manifest.v2+json",
    /// A Docker image config.
    DockerConfig = "application/vnd.docker.container.image.v1+json",
    /// An uncompressed Docker layer.
    DockerLayer = "application/vnd.docker.image.rootfs.diff.tar",
    /// A gzip Docker layer.
    DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip",
    /// An in-toto statement.
    InToto = "application/vnd.in-toto+json",
}

impl MediaType {
    /// Whether this is an index of either vocabulary.
    pub const fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerIndex)
    }

    /// OCI's name for the same.
    #[must_use]
    pub fn in_oci(self) -> Self {
        match self {
            Self::DockerIndex => Self::OciIndex,
            Self::DockerManifest => Self::OciManifest,
            Self::DockerConfig => Self::OciConfig,
            Self::DockerLayer => Self::OciLayer,
            Self::DockerLayerGzip => Self::OciLayerGzip,
            other => other,
        }
    }

    /// Whether this is an image manifest of either vocabulary.
    pub const fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// Whether this is a layer that rbuild can unpack.
    pub const fn is_layer(&self) -> bool {
        matches!(
            self,
            Self::OciLayer
                | Self::OciLayerGzip
                | Self::OciLayerZstd
                | Self::DockerLayer
                | Self::DockerLayerGzip
        )
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["application/vnd.oci.image.layer.v1.tar+zstd", "application/x-unknown"] {
            assert_eq!(MediaType::from(name).as_str(), name);
        }
        assert!(MediaType::from("application/vnd.docker.distribution.manifest.list.v2+json").is_index());
        assert!(!MediaType::from("application/x-unknown").is_layer());
    }
}
