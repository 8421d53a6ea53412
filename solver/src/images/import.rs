//! From the tar of a file system to an image of one layer.

use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::Snapshot;
use rbuild_cache::layer::compression::Decoder;
use rbuild_cache::layer::{ApplyOptions, LAYER_SIZE_BYTES_MAX, apply};
use rbuild_cache::root_dir::RootDir;
use rbuild_image::{Digest, History, ImageConfig, Reference};
use rbuild_registry::HttpRequest;

use super::produced::produced;
use super::{AssembleOptions, ImageError, Images};
use crate::shared::Tree;

/// What an imported file system becomes.
#[derive(Debug)]
pub struct ImportOptions {
    /// The image's config; history and layers are filled in.
    pub config: ImageConfig,
    /// When, RFC 3339.
    pub created: String,
    /// What to say in the history.
    pub message: Option<String>,
    /// The image's name.
    pub name: Option<Reference>,
}

impl Images {
    /// Makes an image of a tar of a web server, which is unpacked while it comes. Returns its id.
    ///
    /// # Errors
    /// As [`import`](Self::import), and when the tar cannot be fetched whole.
    pub fn import_url(
        &self,
        url: &str,
        options: ImportOptions,
        cancel: Arc<AtomicBool>,
    ) -> Result<Digest, ImageError> {
        let request = HttpRequest {
            url: url.to_owned(),
            headers: Vec::new(),
            etag: None,
            last_modified: None,
            size_bytes_max: LAYER_SIZE_BYTES_MAX,
        };
        let client = self.registry_handle();
        let fault = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&fault);
        let tar = produced(move |out| {
            let watch = rbuild_registry::Watch { progress: &|_| {}, cancel: &cancel };
            client.http_get(&request, out, watch).map(drop).map_err(|error| {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                ImageError::Cancelled
            })
        });
        let imported = self.import(tar, options);
        let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        match fault {
            // What came is no tar, so that nobody read on.
            None | Some(rbuild_registry::Error::Sink { .. }) => imported,
            Some(fault) => Err(fault.into()),
        }
    }

    /// Makes an image of a tar, plain or compressed. Returns its id.
    ///
    /// The layer is what the tar unpacks to, and not the tar: whiteouts in it are files like others.
    ///
    /// # Errors
    /// When the tar is damaged or the store fails.
    pub fn import(&self, tar: impl Read + Send, options: ImportOptions) -> Result<Digest, ImageError> {
        let failed = ImageError::io("read", "the archive");
        let mut tar = Decoder::new(tar, LAYER_SIZE_BYTES_MAX).map_err(failed)?;
        let active = self.store.prepare(&Snapshot::empty())?;
        apply(&mut tar, &RootDir::open(active.upper())?, &ApplyOptions::literal())?;
        let snapshot = active.commit()?;
        let mut config = options.config;
        config.created = Some(options.created.clone());
        config.history = vec![History {
            created: Some(options.created),
            comment: Some(options.message.unwrap_or_else(|| "imported by rbuild".to_owned())),
            ..History::default()
        }];
        let layers = self.describe(&Tree::Here(snapshot.clone()), None)?;
        let image = self.assemble(config, &layers, &AssembleOptions::default())?;
        self.name(&image.target, &[snapshot], options.name.as_slice())?;
        Ok(image.id())
    }
}
