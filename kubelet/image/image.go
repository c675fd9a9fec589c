// Package image keeps the images that pods need: it makes the few that knarr
// brings itself, pulls the others, and removes what nobody uses.
package image
