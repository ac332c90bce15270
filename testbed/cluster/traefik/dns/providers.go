// Package dns stands in for the two hundred DNS providers of Traefik's ACME client, which take
// longer to build than all the rest of Traefik and which no test uses (`go build -overlay`).
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName knows no provider.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("DNS provider %s: this Traefik is built without DNS providers", name)
}
