//! URLs as places: which store and path they name, whose settings count, and that no secret comes back.

use std::error::Error as _;

use super::*;
use crate::error::ErrorKind;

const NONE: [(&str, &str); 0] = [];

fn at(url: &str) -> Location {
    Location::with_options(url, NONE).unwrap()
}

fn refused(url: &str) -> Error {
    let error = Location::with_options(url, NONE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}: {error}");
    error
}

/// Everything that an error can be made to show.
fn all_of(error: &Error) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        shown += &format!(" {error} {error:?}");
        source = error.source();
    }
    shown
}

#[test]
fn urls_and_local_paths_name_a_store_and_a_path() {
    let here = at(".").path().clone();
    assert!(here.parts_count() > 0);
    for (url, store, path) in [
        ("file:///data/plays", "LocalFileSystem", "data/plays"),
        ("file:///data/plays/", "LocalFileSystem", "data/plays"),
        ("file:///", "LocalFileSystem", ""),
        ("file:///a%20b/%23%25/%C3%BC", "LocalFileSystem", "a b/#%/ü"),
        ("file:///data/x/../plays", "LocalFileSystem", "data/plays"),
        ("/data/plays", "LocalFileSystem", "data/plays"),
        ("/data/a b/#%?/ü", "LocalFileSystem", "data/a b/#%?/ü"),
        ("/no/such/../folder", "LocalFileSystem", "no/folder"),
        ("memory://", "InMemory", ""),
        ("memory:///plays", "InMemory", "plays"),
        ("s3://bucket", "AmazonS3(bucket)", ""),
        ("s3://bucket/plays/week=1", "AmazonS3(bucket)", "plays/week=1"),
        ("s3a://bucket/a%23b", "AmazonS3(bucket)", "a#b"),
        ("https://s3.eu-north-1.amazonaws.com/bucket/plays", "AmazonS3(bucket)", "plays"),
    ] {
        let found = at(url);
        assert!(found.store().to_string().starts_with(store), "{url}: {}", found.store());
        assert_eq!(found.path().as_ref(), path, "{url}");
    }
    for (relative, path) in [("data/plays", "data/plays"), ("./data", "data"), ("a/../b", "b")] {
        assert_eq!(*at(relative).path(), at(".").join(path), "{relative}");
    }
    assert_eq!(at("..").path().as_ref(), here.as_ref().rsplit_once('/').map_or("", |(parent, _)| parent));
}

#[test]
fn what_is_joined_is_encoded_and_what_the_url_says_is_kept() {
    let location = at("memory:///50%25/a%23b");
    assert_eq!(location.join("plays/week=1").as_ref(), "50%/a#b/plays/week=1");
    assert_eq!(location.join("../a#b").as_ref(), "50%/a#b/%2E%2E/a%23b");
    assert_eq!(location.join(Path::parse("x#y").unwrap()).as_ref(), "50%/a#b/x#y");
    assert_eq!(format!("{location:?}"), r#"Location { store: InMemory, path: "50%/a#b" }"#);
}

#[test]
fn every_store_in_memory_is_its_own() {
    assert!(!Arc::ptr_eq(&at("memory://").store(), &at("memory://").store()));
}

#[test]
fn urls_of_no_store_say_what_is_wrong() {
    for (url, part) in [
        ("file://data/plays", "three slashes"),
        ("memory://plays", "no host"),
        ("ftp://host/plays", "no known kind"),
        ("bucket:plays", "no known kind"),
        ("http://host/plays", "create an object only if there is none"),
        ("https://host/plays", "create an object only if there is none"),
        ("s3:///plays", "no known kind"),
        ("s3://bucket/a//b", "cannot be one in a store"),
        ("memory:///a%0Ab", "cannot be one in a store"),
        ("", "local path"),
    ] {
        assert!(refused(url).to_string().contains(part), "{url}: {}", refused(url));
    }
}

#[test]
fn a_store_whose_feature_is_off_names_the_feature() {
    for (url, feature, on) in [
        ("s3://bucket/plays", "aws", cfg!(feature = "aws")),
        ("gs://bucket/plays", "gcp", cfg!(feature = "gcp")),
        ("az://container/plays", "azure", cfg!(feature = "azure")),
        ("abfss://container@account.dfs.core.windows.net/plays", "azure", cfg!(feature = "azure")),
    ] {
        if !on {
            let error = refused(url).to_string();
            assert!(error.contains(&format!("enable feature `{feature}` of sort-merge-bucket")), "{error}");
        }
    }
}

#[test]
fn urls_with_secrets_are_refused_and_not_repeated() {
    for url in [
        "s3://AKIA:hunter2@bucket/plays",
        "s3://hunter2@bucket/plays",
        "gs://hunter2@bucket/plays",
        "az://container:hunter2@account/plays",
        "memory://hunter2@/plays",
        "s3://bucket/plays?aws_secret_access_key=hunter2",
        "s3://bucket/plays#hunter2",
        "az://container/plays?sv=2024&sig=hunter2",
        "https://account.blob.core.windows.net/container/plays?sig=hunter2",
        "file:///plays?hunter2",
        "s3://AKIA:hunter2@bucket:port/plays",
        "s3://AKIA:hunter2@[bucket/plays",
        "https://AKIA:hunter2@host/plays",
        "ftp://AKIA:hunter2@host/plays",
        "://AKIA:hunter2@bucket",
        "s 3://AKIA:hunter2@bucket",
    ] {
        let shown = all_of(&refused(url));
        assert!(!shown.contains("hunter2") && !shown.contains("AKIA"), "{url}: {shown}");
    }
}

#[test]
fn settings_that_would_show_a_password_are_refused_and_not_repeated() {
    let options = [("AWS_REGION", "eu-north-1"), ("AWS_ENDPOINT", "http://me:hunter2@localhost:9000")];
    let error = Location::with_options("s3://bucket", options).unwrap_err();
    assert!(error.to_string().contains("setting=`AWS_ENDPOINT`"), "{error}");
    assert!(!all_of(&error).contains("hunter2"), "{error:?}");
}

#[test]
fn only_the_settings_of_the_kind_of_store_are_chosen_and_their_order_decides_nothing() {
    let all = [
        ("AWS_REGION", "r"),
        ("REGION", "other"),
        ("TOKEN", "other"),
        ("GOOGLE_SERVICE_ACCOUNT", "g"),
        ("SERVICE_ACCOUNT", "s"),
        ("SERVICE_ACCOUNT_KEY", "other"),
        ("AWS_ENDPOINT_URL", "u"),
        ("AWS_ENDPOINT", "e"),
        ("AZURE_CLIENT_ID", "c"),
        ("IDENTITY_ENDPOINT", "i"),
    ];
    let chosen = |kind, reversed: bool| -> Vec<String> {
        let mut all: Vec<_> = all.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        if reversed {
            all.reverse();
        }
        Settings::of(&kind).unwrap().choose(all.into_iter()).into_iter().map(|(name, _)| name).collect()
    };
    for reversed in [false, true] {
        let s3 = chosen(ObjectStoreScheme::AmazonS3, reversed);
        assert_eq!(s3, ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_REGION"]);
        let google = chosen(ObjectStoreScheme::GoogleCloudStorage, reversed);
        assert_eq!(google, ["SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT"]);
        assert_eq!(chosen(ObjectStoreScheme::MicrosoftAzure, reversed), ["IDENTITY_ENDPOINT", "AZURE_CLIENT_ID"]);
        assert!(chosen(ObjectStoreScheme::Local, reversed).is_empty());
    }
    assert!(Settings::of(&ObjectStoreScheme::Http).is_none());
}

#[cfg(feature = "aws")]
#[test]
fn settings_reach_the_store_and_conditional_puts_are_on() {
    let options = [("AWS_REGION", "eu-north-1"), ("aws_endpoint", "http://localhost:9"), ("allow_http", "true")];
    let location = Location::with_options("s3://bucket/plays", options).unwrap();
    let shown = format!("{:?}", location.store());
    for part in ["eu-north-1", "http://localhost:9/bucket", "conditional_put: ETagMatch"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // What is missing or wrong shows when the place is named, not at the first request.
    let error = Location::with_options("s3://bucket", [("AWS_ACCESS_KEY_ID", "AKIA")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(all_of(&error).contains("SecretAccessKey"), "{error:?}");
}
