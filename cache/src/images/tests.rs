use rbuild_image::MediaType;

use super::*;
use crate::testing::{TestStore, commit_file};

/// Stores an image of one config and no layers.
pub(crate) fn store_image(store: &Store, config: &str) -> Descriptor {
    let config = Descriptor::of(MediaType::OciConfig, store_bytes(store, config.as_bytes()));
    let manifest = Manifest::new(config, Vec::new()).to_bytes();
    Descriptor::of(MediaType::OciManifest, store_bytes(store, &manifest))
}

fn store_bytes<'a>(store: &Store, bytes: &'a [u8]) -> &'a [u8] {
    store.content().put(bytes).unwrap();
    bytes
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn an_image_is_found_by_name_and_by_id() {
    let store = TestStore::new();
    let (target, snapshot) = (store_image(&store, "{}"), commit_file(&store, &Snapshot::empty(), "a", "1"));
    store.images().put(&name("app"), &target, std::slice::from_ref(&snapshot)).unwrap();
    let image = store.second_handle().images().get(&name("app:latest")).unwrap().unwrap();
    assert_eq!(image.names, [name("app")]);
    assert_eq!((&image.target, &image.snapshots), (&target, &vec![snapshot]));
    assert_eq!(image.config, Some(Digest::of("{}")));
    for id in [target.digest.to_string(), target.digest.short(), Digest::of("{}").short()] {
        assert_eq!(store.images().by_id_prefix(&id).unwrap(), std::slice::from_ref(&image), "{id}");
    }
    assert!(store.images().by_id_prefix("").unwrap().is_empty());
    assert!(store.images().by_id_prefix("zz").unwrap().is_empty());
}

#[test]
fn an_index_goes_by_the_image_of_this_machine() {
    let store = TestStore::new();
    let [other, own] = ["{}", "{ }"].map(|config| store_image(&store, config));
    let entry = |image: &Descriptor, platform| Descriptor { platform: Some(platform), ..image.clone() };
    let index = |entries| {
        let bytes = Index::new(entries).to_bytes();
        Descriptor::of(MediaType::OciIndex, store_bytes(&store, &bytes))
    };
    let other = entry(&other, Platform::new("linux", "s390x", None));
    let both = index(vec![other.clone(), entry(&own, Platform::host())]);
    store.images().put(&name("both"), &both, &[]).unwrap();
    let gone = Descriptor::of(MediaType::OciManifest, b"not here");
    let rest = index(vec![entry(&gone, Platform::host()), other.clone().attesting(gone.digest), other]);
    store.images().put(&name("rest"), &rest, &[]).unwrap();
    for (image, config) in [("both", "{ }"), ("rest", "{}")] {
        let found = store.images().by_id_prefix(&Digest::of(config).short()).unwrap();
        assert_eq!((found.len(), &found[0].names), (1, &vec![name(image)]));
        assert_eq!(found[0].id(), Digest::of(config));
    }
}

#[test]
fn one_image_in_two_forms_is_one_image() {
    let store = TestStore::new();
    let plain = store_image(&store, "{}");
    let config = Descriptor::of(MediaType::OciConfig, b"{}");
    let layer = Descriptor::of(MediaType::OciLayerGzip, store_bytes(&store, b"layer"));
    let manifest = Manifest::new(config, vec![layer]).to_bytes();
    let packed = Descriptor::of(MediaType::OciManifest, store_bytes(&store, &manifest));
    store.images().put(&name("app"), &plain, &[]).unwrap();
    store.images().put(&name("other"), &packed, &[]).unwrap();
    assert_eq!(store.images().list().unwrap().len(), 2);
    store.images().put(&name("app"), &packed, &[]).unwrap();
    let images = store.images().list().unwrap();
    assert_eq!(images.iter().map(|image| image.target.digest).collect::<Vec<_>>(), [packed.digest]);
    assert_eq!(images[0].names, [name("app"), name("other")]);
}

#[test]
fn a_name_moves_and_the_old_image_stays_without_one() {
    let store = TestStore::new();
    let (old, new) = (store_image(&store, "{}"), store_image(&store, "{ }"));
    store.images().put(&name("app"), &old, &[]).unwrap();
    store.images().put(&name("app"), &new, &[]).unwrap();
    assert_eq!(store.images().get(&name("app")).unwrap().unwrap().target, new);
    let images = store.images().list().unwrap();
    let names: Vec<_> = images.iter().map(|image| (image.target.digest, image.names.len())).collect();
    assert_eq!(names, [(new.digest, 1), (old.digest, 0)]);
}

#[test]
fn an_image_goes_with_its_last_name() {
    let store = TestStore::new();
    let target = store_image(&store, "{}");
    for text in ["app:1", "app:2"] {
        store.images().put(&name(text), &target, &[]).unwrap();
    }
    assert!(store.images().remove(&name("app:1")).unwrap());
    assert_eq!(store.images().list().unwrap()[0].names, [name("app:2")]);
    assert!(store.images().remove(&name("app:2")).unwrap());
    assert!(store.images().list().unwrap().is_empty());
    assert!(!store.images().remove(&name("app:2")).unwrap());
}

#[test]
fn an_image_can_be_kept_without_a_name() {
    let store = TestStore::new();
    let target = store_image(&store, "{}");
    store.images().put(&name("app"), &target, &[]).unwrap();
    assert!(store.images().untag(&name("app")).unwrap());
    assert_eq!(store.images().get(&name("app")).unwrap(), None);
    assert_eq!(store.images().list().unwrap().len(), 1);
    assert!(store.images().remove_target(target.digest).unwrap());
    assert!(store.images().list().unwrap().is_empty());
}

#[test]
fn a_known_snapshot_is_not_lost_by_naming_again() {
    let store = TestStore::new();
    let (target, snapshot) = (store_image(&store, "{}"), commit_file(&store, &Snapshot::empty(), "a", "1"));
    store.images().put(&name("app:1"), &target, std::slice::from_ref(&snapshot)).unwrap();
    store.images().put(&name("app:2"), &target, &[]).unwrap();
    assert_eq!(store.images().get(&name("app:2")).unwrap().unwrap().snapshots, [snapshot]);
}
