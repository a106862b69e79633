//! `encrypt`: values sealed at rest.
