// Package ext is Traefik's place for further options of dynamic configuration: empty, as in its
// own release. It is a module apart that is not published, so it is written here.
package ext

// HTTP is embedded in the configuration of HTTP.
type HTTP struct{}

// Router is embedded in the configuration of every HTTP router.
type Router struct{}
