{{- define "obol.labels" -}}
app.kubernetes.io/part-of: obol
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- define "obol.pod-security" -}}
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
runAsGroup: 65532
runAsNonRoot: true
runAsUser: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "obol.container-security" -}}
allowPrivilegeEscalation: false
capabilities:
  drop:
    - ALL
readOnlyRootFilesystem: true
{{- end }}

{{- define "obol.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: admin
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet:
    path: /healthz
    port: admin
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 2
  timeoutSeconds: 5
{{- end }}

{{- /* stack.yaml as gateway and controller read it. What is secret is in variables, never in the file. */}}
{{- define "obol.stack" -}}
{{- $stack := deepCopy .Values.stack -}}
{{- if .Values.gateway.postgres -}}
{{- $_ := set $stack "journal" (dict "postgres" "env:OBOL_JOURNAL_URL") -}}
{{- end -}}
{{- if .Values.facilitator.networks -}}
{{- $url := printf "http://facilitator.%s.svc:8404" .Release.Namespace -}}
{{- range .Values.facilitator.networks -}}
{{- $_ := set (get (get $stack "networks" | default dict) . | required (printf "facilitator.networks: `stack` says nothing of %s" .)) "facilitator" $url -}}
{{- end -}}
{{- $own := dict "url" $url "credential" "env:OBOL_FACILITATOR_CREDENTIAL" -}}
{{- $_ := set $stack "facilitators" (append (get $stack "facilitators" | default list) $own) -}}
{{- end -}}
{{ toYaml $stack }}
{{- end }}

{{- /* stack.yaml as the facilitator reads it. */}}
{{- define "obol.facilitator-stack" -}}
{{- $networks := dict -}}
{{- range .Values.facilitator.networks -}}
{{- $key := dict "facilitatorKey" (printf "env:%s" (include "obol.facilitator-key" .)) -}}
{{- $_ := set $networks . (merge $key (get (get $.Values.stack "networks" | default dict) . | required (printf "facilitator.networks: `stack` says nothing of %s" .))) -}}
{{- end -}}
{{ dict "id" .Values.stack.id "networks" $networks | toYaml }}
{{- end }}

{{- /* Variable with the key of a network, and its key in the Secret obol-facilitator. */}}
{{- define "obol.facilitator-key" -}}
OBOL_FACILITATOR_KEY_{{ regexReplaceAll "[^A-Za-z0-9]" . "_" | upper }}
{{- end }}

{{- /* A variable out of the key of that name in a Secret. */}}
{{- define "obol.secret-variable" -}}
- name: {{ .key }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}

{{- define "obol.stack-kind" -}}
{{ if .Values.stack.networks }}Secret{{ else }}ConfigMap{{ end }}
{{- end }}

{{- define "obol.stack-volume" -}}
- name: stack
  {{- if .Values.stack.networks }}
  secret:
    secretName: obol-stack
  {{- else }}
  configMap:
    name: obol-stack
  {{- end }}
{{- end }}
