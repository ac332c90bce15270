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

{{- /* The Gateway that routes attach to, and its listener. */}}
{{- define "obol.ingress" -}}
{{- $ingress := .Values.stack.ingress | default dict -}}
{{- $install := ne (toString (get $ingress "install")) "false" -}}
{{- $gateway := get $ingress "gateway" | default "traefik/traefik-gateway" -}}
{{- $section := get $ingress "section" | default (ternary "web" "" $install) -}}
{{ $gateway }}{{ with $section }}/{{ . }}{{ end }}
{{- end }}
