// Command probe is what tests run in Pods: `probe serve` answers HTTP on :8080 with who was asked
// for what, and the number of the request if $COUNT_IN names a file to keep it in; `probe get URL`
// prints an answer; `probe resolve NAME` prints addresses.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	if err := run(append(os.Args, "", "")[1], append(os.Args, "", "")[2]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(command, argument string) error {
	switch command {
	case "serve":
		return serve()
	case "get":
		answer, err := (&http.Client{Timeout: 5 * time.Second}).Get(argument)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		_, err = io.Copy(os.Stdout, answer.Body)
		return err
	case "resolve":
		addresses, err := net.LookupHost(argument)
		fmt.Println(strings.Join(addresses, "\n"))
		return err
	}
	return fmt.Errorf("%q? serve, get URL or resolve NAME", command)
}

// serve ends on SIGTERM with every request answered.
func serve() error {
	name, _ := os.Hostname()
	server := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count, err := next(os.Getenv("COUNT_IN"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s %s %s%s\n", name, r.Method, r.URL, count)
	})}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		<-ended.Done()
		time.Sleep(time.Second) // endpoints are withdrawn meanwhile
		server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

var counting sync.Mutex

// next counts up in a file.
func next(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	counting.Lock()
	defer counting.Unlock()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	last, _ := strconv.Atoi(string(text))
	text = strconv.AppendInt(nil, int64(last)+1, 10)
	return " " + string(text), os.WriteFile(file, text, 0o600)
}
