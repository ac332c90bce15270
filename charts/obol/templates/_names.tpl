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

{{- /* stack.yaml as the programs read it. A shared journal's URL is in a variable, never in the file. */}}
{{- define "obol.stack" -}}
{{- $stack := .Values.stack -}}
{{- if .Values.gateway.postgres -}}
{{- $stack = merge (dict "journal" (dict "postgres" "env:OBOL_JOURNAL")) (omit $stack "journal") -}}
{{- end -}}
{{ toYaml $stack }}
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
